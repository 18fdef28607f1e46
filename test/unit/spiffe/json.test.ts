import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { parseJsonObject } from '../../../src/spiffe/json.ts';

const parse = (text: string): unknown => parseJsonObject(text, 'text');

test('objects come out as they went in', () => {
  const keys = fc.oneof(fc.string(), fc.constantFrom('"', '\\', '{', '}', ':', '__proto__'));
  const objects = fc.dictionary(keys, fc.jsonValue({ maxDepth: 3 }));
  fc.assert(
    fc.property(objects, fc.boolean(), (value, spaced) => {
      const text = JSON.stringify(value, undefined, spaced ? 2 : 0);
      // Not beside JSON.parse, which now and then takes an escaped key for another one; see parseJson.
      assert.equal(JSON.stringify(parse(text)), JSON.stringify(value));
    }),
  );
});

test('whatever the text, the parser answers what JSON.parse accepts or throws an AppError', () => {
  const tokens = fc.constantFrom('{', '}', '[', ']', '"a"', '"b"', ':', ',', '1', 'null', ' ', '"', '\\');
  const texts = fc.oneof(
    fc.string(),
    fc.array(tokens, { maxLength: 14 }).map((parts) => `{${parts.join('')}}`),
  );
  fc.assert(
    fc.property(texts, (text) => {
      try {
        assert.deepEqual(parse(text), JSON.parse(text));
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

for (const text of [
  '{"a":1,"a":1}',
  '{"a":1, "b":[{"c":1,"d":{},"c":2}]}',
  '{"a":1,"\\u0061":2}',
  '{"a" :1,"a"\n:2}',
  '{"__proto__":1,"__proto__":2}',
]) {
  test(`${JSON.stringify(text)} has a key twice`, () =>
    assert.throws(
      () => parse(text),
      (error) => error instanceof MalformedError && error.message === 'text has a key twice',
    ));
}

test('equal keys in different objects and equal strings elsewhere are fine', () => {
  for (const text of [
    '{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
    '{"a":"b","b":"b","c":["a","a"]}',
    '{"a":"\\"a\\":"}',
  ]) {
    assert.deepEqual(parse(text), JSON.parse(text));
  }
});

test('integers beyond 2^53 keep every digit when asked to, and stay numbers otherwise', () => {
  const exactly = (text: string): unknown => parseJsonObject(text, 'text', { exactIntegers: true });
  assert.deepEqual(parse('{"a":18446744073709551615}'), { a: 2 ** 64 });
  assert.deepEqual(exactly('{"a":18446744073709551615,"b":9007199254740991,"c":-9007199254740993}'), {
    a: 18446744073709551615n,
    b: 9007199254740991,
    c: -9007199254740993n,
  });
  assert.deepEqual(exactly('{"a":1.5,"b":1e3,"c":1e300}'), { a: 1.5, b: 1000, c: 1e300 });
});

test('other top levels and what is no JSON are malformed, and the text is not quoted', () => {
  for (const text of ['', '[]', 'null', '1', '"a"', '{', '{"secret":}', '{"a":1} x', "{'a':1}", '{"a":1,}']) {
    assert.throws(
      () => parse(text),
      (error) =>
        error instanceof MalformedError && !error.message.includes('secret') && error.cause === undefined,
    );
  }
});

test('more than 32 levels are a LimitError, whatever the text goes on with', () => {
  const nested = (levels: number): string => `{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`;
  assert.ok(parse(nested(32)));
  assert.throws(() => parse(nested(33)), LimitError);
  assert.throws(() => parse('['.repeat(1_000_000)), LimitError);
});
