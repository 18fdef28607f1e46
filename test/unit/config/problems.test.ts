import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nearest } from '../../../src/config/problems.ts';

describe('nearest', () => {
  const known = ['listen', 'listen_mode', 'log', 'policy', 'sds'];
  const slips: readonly [string, string | undefined][] = [
    ['listne', 'listen'],
    ['Listen', 'listen'],
    ['listenmode', 'listen_mode'],
    ['polcy', 'policy'],
    ['logs', 'log'],
    ['federations', undefined],
    ['', undefined],
    ['x'.repeat(65), undefined],
  ];
  for (const [word, meant] of slips) {
    it(`takes ${JSON.stringify(word.slice(0, 20))} for ${meant ?? 'nothing that is known'}`, () =>
      assert.equal(nearest(word, known), meant));
  }
});
