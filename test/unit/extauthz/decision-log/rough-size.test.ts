import assert from 'node:assert/strict';
import { test } from 'node:test';
import { roughSize } from '../../../../src/extauthz/decision-log/rough-size.ts';

test('texts, names and members count', () => {
  assert.equal(roughSize(undefined, 1e6), 16);
  assert.equal(roughSize('abc', 1e6), 19);
  assert.equal(roughSize({ name: ['abc', 1, null] }, 1e6), 16 + 4 + 16 + 19 + 16 + 16);
});

test('a value is not walked beyond the limit, nor by recursion', () => {
  assert.equal(roughSize(['x'.repeat(1_000), 'y'.repeat(1_000)], 500), 16 + 1_016);
  const deep = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`) as unknown;
  assert.equal(roughSize(deep, 1e9), 1_600_000);
});
