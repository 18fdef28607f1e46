import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeStructFields, encodeStruct } from '../../../src/extauthz/struct.ts';
import { AppError, LimitError } from '../../../src/runtime/errors.ts';

function fieldsOf(value: Readonly<Record<string, unknown>>): unknown {
  return (encodeStruct(value) as { fields: unknown }).fields;
}

test('what is written is read back', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 6 })), (value) => {
      assert.equal(JSON.stringify(decodeStructFields(fieldsOf(value))), JSON.stringify(value));
    }),
  );
});

test('what JSON cannot hold becomes null', () => {
  const written = decodeStructFields(fieldsOf({ u: undefined, f: () => 1, s: Symbol('s'), b: 1n }));
  assert.deepEqual({ ...written }, { u: null, f: null, s: null, b: null });
});

test('depth is bounded both ways', () => {
  let plain: Record<string, unknown> = {};
  let wire: object = { fields: {} };
  for (let i = 0; i < 100; i++) {
    plain = { k: i % 2 === 0 ? plain : [plain] };
    wire = { fields: { k: { structValue: wire } } };
  }
  assert.throws(() => encodeStruct(plain), LimitError);
  assert.throws(() => decodeStructFields((wire as { fields: unknown }).fields), LimitError);
});

test('anything that is no struct is read as far as it goes, or refused with an AppError', () => {
  fc.assert(
    fc.property(fc.anything(), (value) => {
      try {
        decodeStructFields(value);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});
