import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { createLatest } from '../../../src/runtime/latest.ts';

test('a reader gets the current value first, then newer ones', async () => {
  const latest = createLatest(1);
  const controller = new AbortController();
  const seen: number[] = [];
  for await (const value of latest.changes(controller.signal)) {
    seen.push(value);
    if (value === 1) queueMicrotask(() => latest.set(2));
    if (value === 2) controller.abort();
  }
  assert.deepEqual(seen, [1, 2]);
});

test('a slow reader skips to the newest value', async () => {
  const latest = createLatest(1);
  const controller = new AbortController();
  const seen: number[] = [];
  for await (const value of latest.changes(controller.signal)) {
    seen.push(value);
    if (value === 1) for (const next of [2, 3, 4]) latest.set(next);
    if (value === 4) controller.abort();
  }
  assert.deepEqual(seen, [1, 4]);
});

test('every reader sees a change', async () => {
  const latest = createLatest('old');
  const controller = new AbortController();
  const readers = [1, 2, 3].map(async () => {
    for await (const value of latest.changes(controller.signal)) if (value === 'new') return value;
    return 'aborted';
  });
  setImmediate(() => latest.set('new'));
  assert.deepEqual(await Promise.all(readers), ['new', 'new', 'new']);
});

test('a reader that is aborted while it waits ends and leaves nothing behind', async () => {
  const latest = createLatest(1);
  const controller = new AbortController();
  setImmediate(() => controller.abort());
  const seen: number[] = [];
  for await (const value of latest.changes(controller.signal)) seen.push(value);
  assert.deepEqual(seen, [1]);
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});
