import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createBundleJobs } from '../../../../src/policy/bundle/bundle-jobs.ts';
import { sleep } from '../../../../src/runtime/abort.ts';
import { AppError } from '../../../../src/runtime/errors.ts';
import { labBundle, packBundle, packTar } from '../../../support/bundles.ts';

const forever = new AbortController().signal;
const jobs = createBundleJobs({ sleep });
const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const mebibyte = 1024 * 1024;

const manifest = { path: '.manifest', bytes: Buffer.from('{"roots":["users"]}') };

function fast(files: Parameters<typeof packTar>[0]): Buffer {
  return gzipSync(packTar(files), { level: 1 });
}

function bundleOfData(text: string | Buffer): Buffer {
  return fast([manifest, { path: 'data.json', bytes: Buffer.from(text) }]);
}

/** How long the main thread stood still at most while `work` was under way, in milliseconds. */
async function stall(work: () => Promise<unknown>): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  await work();
  delay.disable();
  return delay.max / 1e6;
}

test('hostile bundles cost their refusal, and the main thread nothing', async () => {
  const deep = `{"users":${'['.repeat(5 * mebibyte)}`;
  const dense = `{"users":{${Array.from({ length: 1_900_000 }, (_, i) => `"k${i}":[]`).join(',')}},"x":1}`;
  const flat = Buffer.from(`{${Array.from({ length: 4_500_000 }, (_, i) => `"${i}":0`).join(',')}}`);
  const part = (name: string): Buffer =>
    Buffer.from(`{${Array.from({ length: 900_000 }, (_, i) => `"${name}${i}":0`).join(',')}}`);
  const table: readonly (readonly [string, Buffer, RegExp, KeyObject?])[] = [
    ['a zip bomb', gzipSync(Buffer.alloc(300 * mebibyte), { level: 1 }), /unpacks to more than/],
    ['deep JSON', bundleOfData(deep), /nested more than 1000 deep/],
    ['many members', bundleOfData(dense), /data at "\/x" is outside the roots/],
    // Node ends the whole process, and not the thread, when one large table does not fit any more.
    [
      'a flat document',
      fast([{ path: 'data.json', bytes: flat }]),
      /data\.json .* goes beyond 2000000 values/,
    ],
    [
      'many documents at one place',
      fast(['.', '..', '...'].map((dots) => ({ path: `.${dots}a/data.json`, bytes: part(dots) }))),
      /goes beyond 2000000 values/,
    ],
    [
      'a large signature',
      fast([{ path: '.signatures.json', bytes: flat }]),
      /\.signatures\.json is larger than 8388608 bytes/,
      ec.publicKey,
    ],
    ['much data', bundleOfData(`{"users":"${'x'.repeat(65 * mebibyte)}"}`), /data is larger than/],
    [
      'many files',
      fast(Array.from({ length: 100_000 }, (_, i) => ({ path: `f${i}`, bytes: Buffer.alloc(0) }))),
      /more than 10000 entries/,
    ],
    [
      'a long path',
      fast([{ path: `${'d/'.repeat(50_000)}data.json`, bytes: Buffer.from('{}') }]),
      /more than 1000 directories deep/,
    ],
    ['__proto__', bundleOfData('{"__proto__":{"users":1}}'), /data at "\/__proto__" is outside the roots/],
    ['no policy', fast([{ path: 'policy.wasm', bytes: Buffer.alloc(mebibyte) }]), /not a WebAssembly module/],
    [
      'roots without end',
      fast([{ path: '.manifest', bytes: Buffer.from(JSON.stringify({ roots: Array(5_000).fill('a') })) }]),
      /more than 1000 roots/,
    ],
  ];
  const before = process.memoryUsage.rss();
  for (const [what, bundle, why, key] of table) {
    const longest = await stall(() =>
      assert.rejects(
        jobs.parse({ bytes: bundle, key, mayBeDelta: true }, undefined, forever),
        (error) => error instanceof AppError && why.test(error.message),
        what,
      ),
    );
    assert.ok(longest < 2_000, `${what} held the main thread up for ${longest} ms`);
  }
  assert.ok(process.memoryUsage.rss() - before < 1024 * mebibyte);
});

test('a bundle of almost 64 MiB is read beside the main thread', async () => {
  const users = Array.from({ length: 390_000 }, (_, i) => [
    `user-${i}`,
    { teams: ['a', `team-${i % 97}`], since: 2_000_000 + i },
  ]);
  const text = JSON.stringify({ users: Object.fromEntries(users) });
  const filler = { path: 'notes.bin', bytes: randomBytes(56 * mebibyte) };
  const file = fast([manifest, { path: 'data.json', bytes: Buffer.from(text) }, filler]);
  assert.ok(file.length > 56 * mebibyte && file.length < 64 * mebibyte, String(file.length));
  let size = 0;
  const longest = await stall(async () => {
    const bundle = await jobs.parse({ bytes: file, key: undefined, mayBeDelta: true }, undefined, forever);
    const more = await jobs.parse(
      { bytes: bundleWithout(), key: undefined, mayBeDelta: true },
      undefined,
      forever,
    );
    size = (await jobs.merge([bundle, more], forever)).length;
  });
  assert.ok(size > text.length);
  // What is left to the main thread is one copy of the file; the bound is for machines that have something else to do.
  assert.ok(longest < 1_500, `the main thread stood still for ${longest} ms`);
});

function bundleWithout(): Buffer {
  const other = { path: '.manifest', bytes: Buffer.from('{"roots":["more"]}') };
  return fast([other, { path: 'data.json', bytes: Buffer.from('{"more":1}') }]);
}

test('a job ends with its signal, and its thread with it', async () => {
  const stop = new AbortController();
  const bundle = await labBundle({});
  const job = jobs.parse({ bytes: bundle, key: ec.publicKey, mayBeDelta: true }, undefined, stop.signal);
  stop.abort();
  await assert.rejects(job, { code: 'aborted' });
  await assert.rejects(
    jobs.parse({ bytes: bundle, key: ec.publicKey, mayBeDelta: true }, undefined, forever),
    /has no \.signatures\.json/,
  );
  assert.equal(bundle.length, (await labBundle({})).length);
});

test('the bytes of a version are whole afterwards, for who keeps them', async () => {
  const bytes = packBundle(new Map([['data.json', Buffer.from('{"a":1}')]]));
  const copy = Buffer.from(bytes);
  const { data, kind } = await jobs.parse({ bytes, key: undefined, mayBeDelta: true }, undefined, forever);
  assert.equal(kind, 'snapshot');
  assert.equal(Buffer.from(data).toString(), '{"a":1}');
  assert.deepEqual(bytes, copy);
});

test('a delta that was not asked for is refused, whatever version there is', async () => {
  const version = (bytes: Buffer, mayBeDelta: boolean) => ({ bytes, key: undefined, mayBeDelta });
  const base = await jobs.parse(version(bundleOfData('{"users":[]}'), false), undefined, forever);
  const patch = '{"data":[{"op":"upsert","path":"/users/-","value":"eve"}]}';
  const delta = fast([manifest, { path: 'patch.json', bytes: Buffer.from(patch) }]);
  await assert.rejects(
    jobs.parse(version(delta, false), base, forever),
    /delta bundle came without being asked/,
  );
  const { data } = await jobs.parse(version(delta, true), base, forever);
  assert.equal(Buffer.from(data).toString(), '{"users":["eve"]}');
});
