import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  canonical,
  compareValues,
  formatValue,
  parseValue,
  sameValue,
  type Value,
} from '../../../../src/policy/builtins/value.ts';
import { AppError, MalformedError } from '../../../../src/runtime/errors.ts';

const values = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.bigInt().map((number) => parseValue(number.toString())),
    fc.string({ unit: 'binary' }).map((text) => text.toWellFormed()),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.array(fc.tuple(fc.string(), tie('value')), { maxLength: 4 }).map((pairs) => new Map(pairs)),
    fc.uniqueArray(tie('value'), { maxLength: 4, selector: canonical }).map((items) => new Set(items)),
  ),
})).value;

test('what is formatted is read back as the same value', () => {
  fc.assert(
    fc.property(values, (value) => {
      assert.ok(sameValue(parseValue(formatValue(value)), value));
    }),
  );
});

test('reading throws nothing but AppError, whatever the text', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...Array.from('{}[]",:0-.e1tsnull() \\')) }), (text) => {
      try {
        parseValue(text);
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
  );
});

test('numbers keep every digit', () => {
  for (const text of ['12345678901234567890123', '0.10', '1e400', '-9007199254740993']) {
    assert.equal(formatValue(parseValue(text)), text);
  }
});

test('nesting without end is refused', () => {
  assert.throws(() => parseValue('['.repeat(100_000)), MalformedError);
});

test('values of different types have the order null, boolean, number, string, array, object, set', () => {
  const ordered: readonly Value[] = [null, false, true, 1, 2.5, 'a', 'b', [], [1], new Map(), new Set()];
  for (const [index, one] of ordered.entries()) {
    for (const [other, two] of ordered.entries()) {
      assert.equal(Math.sign(compareValues(one, two)), Math.sign(index - other));
    }
  }
});
