import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type DeniedState,
  keepDenied,
  noDenied,
  parseDeniedLines,
  settleDenied,
  takeDenied,
} from '../../../src/extauthz/denied-file.ts';

const a = 'spiffe://example.org/agent/a';
const b = 'spiffe://example.org/agent/b';

function take(state: DeniedState, text: string, now: number): DeniedState {
  return takeDenied(state, parseDeniedLines(text).patterns, now);
}

function denied(state: DeniedState): readonly string[] {
  return [...state.inForce.keys()].sort();
}

test('a file has one pattern a line; comments and empty lines say nothing', () => {
  const { patterns, problems } = parseDeniedLines(`# banned\n\n  ${a}\r\nspiffe://example.org/bad/*\n`);
  assert.deepEqual(
    patterns.map(({ text }) => text),
    [a, 'spiffe://example.org/bad/*'],
  );
  assert.deepEqual(problems, []);
});

test('a bad line is reported with its number and does not keep the good ones out', () => {
  const { patterns, problems } = parseDeniedLines(`${a}\nspiffe://*/x\n${b}`);
  assert.deepEqual(
    patterns.map(({ text }) => text),
    [a, b],
  );
  assert.deepEqual(
    problems.map(({ line }) => line),
    [2],
  );
});

test('a new line is in force at once', () => {
  const state = take(take(noDenied, a, 0), `${a}\n${b}`, 10);
  assert.deepEqual(denied(state), [a, b]);
});

test('a removed line is let go only after the file has stayed so for a second', () => {
  const removed = take(take(noDenied, `${a}\n${b}`, 0), b, 5_000);
  assert.deepEqual(denied(settleDenied(removed, 5_999)), [a, b]);
  assert.deepEqual(denied(settleDenied(removed, 6_000)), [b]);
});

test('a file that is rewritten, and empty for a moment, lets nobody through', () => {
  const emptied = take(take(noDenied, a, 0), '', 5_000);
  const rewritten = take(settleDenied(emptied, 5_500), `${a}\n${b}`, 5_600);
  assert.deepEqual(denied(settleDenied(rewritten, 60_000)), [a, b]);
});

test('a file that vanishes keeps the last list, however long it is away', () => {
  const gone = keepDenied(take(take(noDenied, `${a}\n${b}`, 0), b, 100));
  assert.deepEqual(denied(settleDenied(gone, 1_000_000)), [a, b]);
});

test('whatever the text, only pattern lines count and nothing is thrown', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const { patterns, problems } = parseDeniedLines(text);
      assert.ok(patterns.length + problems.length <= text.split('\n').length);
    }),
  );
});
