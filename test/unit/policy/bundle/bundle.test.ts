import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { parseBundle } from '../../../../src/policy/bundle/bundle.ts';
import { AppError, LimitError } from '../../../../src/runtime/errors.ts';
import { fixtureBundle, labBundle, packBundle } from '../../../support/bundles.ts';

test('a bundle of opa build is read with revision, roots, data and a digest of its bytes', async () => {
  const bundle = await parseBundle(await fixtureBundle('lab'));
  assert.equal(bundle.manifest.revision, 'lab-1');
  assert.deepEqual(bundle.manifest.roots, [[]]);
  assert.deepEqual(JSON.parse(Buffer.from(bundle.data).toString()), { users: ['alice'] });
  assert.match(bundle.digest, /^[0-9a-f]{64}$/);
  const other = await parseBundle(await labBundle({ 'data.json': '{}' }));
  assert.notEqual(other.digest, bundle.digest);
});

test('manifest and data may be missing', async () => {
  const bundle = await parseBundle(await labBundle({ '.manifest': undefined, 'data.json': undefined }));
  const { revision, roots } = bundle.manifest;
  assert.deepEqual([revision, roots, Buffer.from(bundle.data).toString()], ['', [[]], '{}']);
});

test('each defect of a bundle is named', async () => {
  const lab = await fixtureBundle('lab');
  const table: readonly (readonly [Buffer, RegExp])[] = [
    [Buffer.alloc(0), /not a gzip file/],
    [Buffer.from('{}'), /not a gzip file/],
    [lab.subarray(0, lab.length - 100), /not a gzip file, or not a whole one/],
    [gzipSync(Buffer.from('x')), /tar archive is cut off/],
    [packBundle(new Map([['policy.wasm', Buffer.from('x')]])), /not a WebAssembly module/],
    [await labBundle({ '.manifest': '[' }), /\.manifest of the bundle is not JSON/],
    [await labBundle({ '.manifest': '[]' }), /not a JSON object/],
    [await labBundle({ '.manifest': '{"revision":1}' }), /revision/],
    [await labBundle({ '.manifest': '{"roots":[1]}' }), /roots/],
    [await labBundle({ 'users/data.json': '{}' }), /data at "\/users" is in the bundle twice/],
    [await labBundle({ 'data.yaml': 'a: 1' }), /"data\.yaml", which is not read here/],
    [
      await labBundle({ 'data.json': '{"a":1}', '.manifest': '{"roots":["lab"]}' }),
      /data at "\/a" is outside/,
    ],
    [
      await labBundle({ '.manifest': '{"roots":["users"]}' }),
      /entry point "\/lab\/[a-z_]+" of policy\.wasm is outside/,
    ],
    [
      await labBundle({ '.manifest': '{"roots":["lab","lab/x"]}' }),
      /roots "\/lab\/x" and "\/lab" of bundle  ?overlap/,
    ],
    [
      await labBundle({ '.manifest': '{"wasm":[{"entrypoint":"lab/no","module":"/policy.wasm"}]}' }),
      /lists entry point "lab\/no"/,
    ],
    [await labBundle({ 'patch.json': '{"data":[]}' }), /delta bundle holds "[^"]+" beside patch\.json/],
  ];
  for (const [file, message] of table) {
    await assert.rejects(
      parseBundle(file),
      (error) => error instanceof AppError && message.test(error.message),
      String(message),
    );
  }
});

test('a small file that unpacks to a huge one is refused before it is unpacked', async () => {
  const bomb = gzipSync(Buffer.alloc(300 * 1024 * 1024));
  await assert.rejects(parseBundle(bomb), LimitError);
});

test('garbage never makes it throw anything but an AppError', async () => {
  const lab = await fixtureBundle('lab');
  const head = lab.subarray(0, 4096);
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 600 }),
      fc.nat(4000),
      fc.boolean(),
      async (bytes, at, zip) => {
        const file = zip ? gzipSync(bytes) : Buffer.concat([head.subarray(0, at), bytes]);
        await assert.rejects(parseBundle(file), AppError);
      },
    ),
  );
});

test('no manifest, data or patch makes it throw anything but an AppError', async () => {
  const base = await parseBundle(packBundle(new Map([['data.json', Buffer.from('{"a":{"b":[1]}}')]])));
  const path = fc.oneof(fc.constantFrom('/a/b/0', '/a/b/-', '/a/%zz', '', '/a/~2'), fc.string());
  const operation = fc.record(
    {
      op: fc.oneof(fc.constantFrom('upsert', 'replace', 'remove'), fc.string()),
      path,
      value: fc.jsonValue(),
    },
    { requiredKeys: [] },
  );
  const patch = fc.oneof(fc.record({ data: fc.array(operation) }), fc.jsonValue());
  const manifest = fc.oneof(
    fc.record(
      { roots: fc.array(fc.string()), wasm: fc.array(fc.jsonValue()), revision: fc.string() },
      { requiredKeys: [] },
    ),
    fc.jsonValue(),
  );
  const files = fc.record(
    { '.manifest': manifest, 'patch.json': patch, 'data.json': fc.jsonValue() },
    { requiredKeys: [] },
  );
  await fc.assert(
    fc.asyncProperty(files, async (contents) => {
      const packed = Object.entries(contents).map(
        ([name, value]) => [name, Buffer.from(JSON.stringify(value) ?? '')] as const,
      );
      try {
        const { data } = await parseBundle(packBundle(new Map(packed)), undefined, base);
        JSON.parse(Buffer.from(data).toString());
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});
