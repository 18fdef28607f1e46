import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changedKeys } from '../../../src/config/changed-keys.ts';

test('equal configurations have no changed key', () => {
  assert.deepEqual(changedKeys({ a: { b: [1, { c: 2 }] } }, { a: { b: [1, { c: 2 }] } }), []);
});

test('a changed, a new and a vanished key are named with their paths', () => {
  assert.deepEqual(changedKeys({ a: { b: 1, c: 2 }, d: 3 }, { a: { b: 9, e: 1 }, d: 3 }), [
    'a.b',
    'a.c',
    'a.e',
  ]);
});

test('a list is one value', () => {
  assert.deepEqual(changedKeys({ a: [{ b: 1 }] }, { a: [{ b: 2 }] }), ['a']);
});

test('a section that comes or goes is named as a whole', () => {
  assert.deepEqual(changedKeys({}, { a: { b: 1 } }), ['a']);
});
