import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nextDelayMs } from '../../../src/runtime/backoff.ts';

const policy = { minMs: 250, maxMs: 30_000 };

test('the ceiling doubles with each attempt up to the maximum', () => {
  const highest = [0, 1, 2, 3, 10, 1000].map((attempt) => nextDelayMs(policy, attempt, () => 1));
  assert.deepEqual(highest, [250, 500, 1000, 2000, 30_000, 30_000]);
});

test('a delay is never below a fifth of the minimum nor above the maximum', () => {
  fc.assert(
    fc.property(fc.nat(), fc.double({ min: 0, max: 0.999999, noNaN: true }), (attempt, random) => {
      const delay = nextDelayMs(policy, attempt, () => random);
      assert.ok(delay >= 50 && delay <= 30_000, String(delay));
    }),
  );
});

test('clients that fail together do not retry together', () => {
  assert.notEqual(
    nextDelayMs(policy, 3, () => 0.1),
    nextDelayMs(policy, 3, () => 0.9),
  );
});
