import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { maxJsonDepth, parseExactJson } from '../../../../src/extauthz/body/exact-json.ts';
import { AppError, LimitError, MalformedError } from '../../../../src/runtime/errors.ts';

test('numbers that a double cannot hold are written back digit by digit', () => {
  for (const text of [
    '12345678901234567890',
    '[9007199254740993,-9007199254740993]',
    '{"id":0.12345678901234567890}',
    '1e400',
    '[-1e-400]',
    '4503599627370496.3',
  ]) {
    assert.equal(JSON.stringify(parseExactJson(text)), text);
  }
});

test('numbers keep their digits wherever they stand, and strings that look like them stay strings', () => {
  const texts = [
    '{"a":[1e400,"1e400",{"b":12345678901234567890,"2":1}],"12345678901234567890":1,"1e400":"\\"1e400"}',
    '[1e400,1,-1e-400,0.5,[[12345678901234567890]],null,true,"\\\\",1e999]',
  ];
  for (const text of texts) {
    const digitsOnly = JSON.stringify(parseExactJson(text));
    assert.equal(digitsOnly.length, text.length);
    assert.deepEqual(JSON.parse(digitsOnly), JSON.parse(text));
  }
});

test('any mix of numbers comes back as it was written', () => {
  const digits = fc.stringMatching(/^[1-9]\d{0,30}$/);
  const number = fc.oneof(
    digits,
    fc.tuple(digits, digits).map(([a, b]) => `-${a}.${b}1`),
    fc.tuple(digits, fc.integer({ min: 400, max: 9999 })).map(([a, e]) => `${a}e${e}`),
  );
  const exact = fc.tuple(number, fc.string()).map(([n, s]) => `[${n},${JSON.stringify(s)}]`);
  fc.assert(
    fc.property(fc.array(exact), (items) => {
      const text = `[${items.join(',')}]`;
      const again = JSON.stringify(parseExactJson(text));
      // Short decimals may be written another way, but never as another number.
      for (const long of text.match(/\d[\d.]{15,}(?:e\d+)?/g) ?? []) assert.ok(again.includes(long), long);
      assert.deepEqual(JSON.parse(again), JSON.parse(text));
    }),
  );
});

test('a number whose exponent no engine can work with is refused', () => {
  for (const text of ['1e100000', '[-1.5E-999999999]', '{"a":1e+0099999999999}']) {
    assert.throws(() => parseExactJson(text), LimitError);
  }
  for (const text of ['1e99999', '0e99999999999', '"1e99999999999"']) parseExactJson(text);
});

test('other numbers are plain numbers', () => {
  const text = '[1,-2.5,1e3,0.1,9007199254740991,0e9,-0,123456.789e-3,"12345678901234567890"]';
  assert.deepEqual(parseExactJson(text), [
    1,
    -2.5,
    1000,
    0.1,
    9007199254740991,
    0,
    -0,
    123.456789,
    '12345678901234567890',
  ]);
});

test('what is no JSON is malformed, and not quoted', () => {
  for (const text of ['', ' ', '{', '{}x', "{'a':1}", '\ufeff{}', 'NaN', '01', '[1,]', 'secret']) {
    assert.throws(
      () => parseExactJson(text),
      (error) => error instanceof MalformedError && !error.message.includes('secret'),
    );
  }
});

test('nesting is bounded, whatever stands inside of strings', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  assert.ok(Array.isArray(parseExactJson(nested(maxJsonDepth))));
  assert.throws(() => parseExactJson(nested(maxJsonDepth + 1)), LimitError);
  assert.throws(() => parseExactJson(nested(100_000)), LimitError);
  const brackets = JSON.stringify(`"\\${'['.repeat(5_000)}`);
  assert.equal(JSON.stringify(parseExactJson(brackets)), brackets);
});

test('a name from the prototype is an own name', () => {
  assert.equal(JSON.stringify(parseExactJson('{"__proto__":{"a":1e400}}')), '{"__proto__":{"a":1e400}}');
});

test('JSON is read as JSON.parse reads it', () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      assert.equal(
        JSON.stringify(JSON.parse(JSON.stringify(parseExactJson(text)))),
        JSON.stringify(JSON.parse(text)),
      );
    }),
  );
});

test('any text parses or is refused with an AppError', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseExactJson(text);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});

test('JSON of more parts than a body has reason to is refused, whatever is in its texts', () => {
  const repeat = (unit: string, count: number): string => Array.from({ length: count }, () => unit).join();
  const over = 100_001;
  for (const text of [
    `[${repeat('[]', over)}]`,
    `[${repeat('{}', over)}]`,
    `{${repeat('"a":1', over)}}`,
    `[${repeat('1e-400', 65_537)}]`,
  ])
    assert.throws(() => parseExactJson(text), LimitError, text.slice(0, 20));
  const quoted = JSON.stringify(repeat('{"a":[]}', over));
  assert.equal((parseExactJson(`[${quoted}]`) as string[])[0]?.length, quoted.length - 2 - 2 * over);
  assert.equal((parseExactJson(`[${repeat('1', 300_000)}]`) as number[]).length, 300_000);
});
