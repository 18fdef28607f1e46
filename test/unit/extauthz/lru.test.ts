import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLruCache } from '../../../src/extauthz/lru.ts';

test('the least recently used entry is forgotten first', () => {
  const cache = createLruCache<string, number>(2);
  cache.set('a', 1);
  cache.set('b', 2);
  assert.equal(cache.get('a'), 1);
  cache.set('c', 3);
  assert.equal(cache.get('b'), undefined);
  assert.equal(cache.get('a'), 1);
  assert.equal(cache.get('c'), 3);
});

test('setting a key again replaces its value without costing another its place', () => {
  const cache = createLruCache<string, number>(2);
  cache.set('a', 1);
  cache.set('b', 2);
  cache.set('a', 3);
  assert.equal(cache.get('a'), 3);
  assert.equal(cache.get('b'), 2);
});

test('clear forgets everything', () => {
  const cache = createLruCache<string, number>(2);
  cache.set('a', 1);
  cache.clear();
  assert.equal(cache.get('a'), undefined);
});
