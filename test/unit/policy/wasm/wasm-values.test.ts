import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Value } from '../../../../src/policy/builtins/value.ts';
import { writeValue } from '../../../../src/policy/wasm/wasm-values.ts';
import { LimitError } from '../../../../src/runtime/errors.ts';

const memory = { grow: () => 0, buffer: new ArrayBuffer(4096) };
const exports = {
  opa_malloc: () => 0,
  opa_free: () => {},
  opa_json_parse: () => 1,
  opa_json_dump: () => 0,
  opa_value_parse: () => 1,
  opa_value_dump: () => 0,
};

test('a value that holds another over and over is refused before its text is made', () => {
  let value: Value = 'x';
  for (let i = 0; i < 100; i++)
    value =
      i % 2 === 0
        ? [value, value]
        : new Map<Value, Value>([
            ['a', value],
            ['b', value],
          ]);
  assert.throws(() => writeValue(exports, memory, value), LimitError);
  assert.equal(writeValue(exports, memory, ['x', new Set([1]), new Map([['a', null]])]), 1);
});
