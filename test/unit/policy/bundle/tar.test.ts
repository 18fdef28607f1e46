import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readTar } from '../../../../src/policy/bundle/tar.ts';
import { AppError, LimitError, MalformedError } from '../../../../src/runtime/errors.ts';
import { packTar } from '../../../support/bundles.ts';

const hello = Buffer.from('hello');

test('regular files come by their path, without leading slash or ./', () => {
  const archive = packTar([
    { path: '/a.txt', bytes: hello },
    { path: './b/c.txt', bytes: Buffer.alloc(513, 1) },
    { path: 'empty', bytes: Buffer.alloc(0), type: '\0' },
  ]);
  const files = readTar(archive);
  assert.deepEqual(
    files.map(({ path, bytes }) => [path, bytes.length]),
    [
      ['a.txt', 5],
      ['b/c.txt', 513],
      ['empty', 0],
    ],
  );
});

test('a long path comes from the extended header in front', () => {
  const path = `${'d'.repeat(90)}/${'f'.repeat(90)}`;
  assert.equal(readTar(packTar([{ path, bytes: hello }]))[0]?.path, path);
});

test('directories, links and devices are passed over', () => {
  const archive = packTar(
    ['5', '2', '1', '3'].map((type) => ({ path: `x${type}`, bytes: Buffer.alloc(0), type })),
  );
  assert.deepEqual(readTar(archive), []);
});

test('a path that climbs out, is empty or occurs twice is refused', () => {
  for (const path of ['../x', 'a/../b', '/', './', '..']) {
    assert.throws(() => readTar(packTar([{ path, bytes: hello }])), MalformedError, path);
  }
  const twice = packTar([
    { path: '/a', bytes: hello },
    { path: 'a', bytes: hello },
  ]);
  assert.throws(() => readTar(twice), /twice/);
});

test('a truncated archive is refused at every length', () => {
  const archive = packTar([{ path: 'a', bytes: Buffer.alloc(600, 7) }]);
  for (let length = 0; length < archive.length - 1024 + 512; length += 97) {
    assert.throws(() => readTar(archive.subarray(0, length)), MalformedError);
  }
});

test('too many entries pass a limit', () => {
  const entry = packTar([{ path: 'd', bytes: Buffer.alloc(0), type: '5' }]).subarray(0, 512);
  const archive = Buffer.concat([...Array.from({ length: 10_001 }, () => entry), Buffer.alloc(1024)]);
  assert.throws(() => readTar(archive), LimitError);
});

test('a changed byte is either harmless or refused, never another error', () => {
  const archive = packTar([
    { path: 'p'.repeat(150), bytes: hello },
    { path: 'q', bytes: hello },
  ]);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(archive.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 5 }),
      fc.nat(archive.length),
      (changes, length) => {
        const broken = Buffer.from(archive);
        for (const [at, byte] of changes) broken[at] = byte;
        try {
          readTar(broken.subarray(0, length));
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test('what is packed is read again', () => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'ü', 'data', '.x'), { minLength: 1, maxLength: 60 })
    .map((p) => p.join('/'));
  const file = fc.record({
    path,
    bytes: fc.uint8Array({ maxLength: 1100 }).map((bytes) => Buffer.from(bytes)),
  });
  fc.assert(
    fc.property(fc.uniqueArray(file, { selector: (one) => one.path, maxLength: 4 }), (files) => {
      assert.deepEqual(
        readTar(packTar(files)).map((one) => ({ ...one, bytes: Buffer.from(one.bytes) })),
        files.map((one) => ({ ...one })),
      );
    }),
  );
});

test('a path that OPA would read as another one is refused', () => {
  for (const path of ['a/./data.json', 'a//data.json', 'a/../data.json', 'a/data.json/', '.', './'])
    assert.throws(() => readTar(packTar([{ path, bytes: Buffer.from('{}') }])), /has an unusable path/, path);
});
