import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeInput } from '../../../src/policy/input-text.ts';
import { MalformedError } from '../../../src/runtime/errors.ts';

test('any JSON value comes back as it was, with lone surrogates replaced as UTF-8 would', () => {
  const text = fc.string({ unit: fc.constantFrom('a', '\\', '"', '\ud800', '\udc00', 'ud800', '😀', '\n') });
  fc.assert(
    fc.property(fc.dictionary(text, text), (value) => {
      const expected = Object.entries(value).map(([k, v]) => [k.toWellFormed(), v.toWellFormed()]);
      assert.deepEqual(JSON.parse(encodeInput(Object.entries(value))), expected);
      assert.deepEqual(Object.keys(JSON.parse(encodeInput(value)) as object).length <= expected.length, true);
    }),
  );
});

test('undefined is null, and what JSON cannot hold is refused', () => {
  assert.equal(encodeInput(undefined), 'null');
  assert.throws(() => encodeInput(1n), MalformedError);
});
