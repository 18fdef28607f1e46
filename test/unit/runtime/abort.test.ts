import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { aborted, sleep, unlessAborted, withDeadline } from '../../../src/runtime/abort.ts';
import { AbortedError, TimeoutError } from '../../../src/runtime/errors.ts';

test('sleep ends early with AbortedError when its signal fires', async () => {
  const controller = new AbortController();
  const waiting = sleep(60_000, controller.signal);
  controller.abort();
  await assert.rejects(waiting, AbortedError);
});

test('sleep under a signal that already fired does not wait', async () => {
  await assert.rejects(sleep(60_000, AbortSignal.abort()), AbortedError);
});

test('sleep leaves no listener on its signal', async () => {
  const controller = new AbortController();
  await sleep(1, controller.signal);
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('aborted resolves at once for a signal that has fired', async () => {
  await aborted(AbortSignal.abort());
});

test('withDeadline gives the value of work that is in time, and leaves no listener', async () => {
  const controller = new AbortController();
  assert.equal(await withDeadline(60_000, controller.signal, () => Promise.resolve(7)), 7);
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('withDeadline ends work that ignores its signal with TimeoutError and tells the work', async () => {
  let seen: AbortSignal | undefined;
  await assert.rejects(
    withDeadline(5, new AbortController().signal, (signal) => {
      seen = signal;
      return new Promise(() => {});
    }),
    TimeoutError,
  );
  assert.equal(seen?.aborted, true);
});

test('withDeadline tells the outer abort from its own deadline', async () => {
  const controller = new AbortController();
  const waiting = withDeadline(60_000, controller.signal, () => new Promise(() => {}));
  controller.abort();
  await assert.rejects(waiting, AbortedError);
});

test('unlessAborted gives what the work gives, and leaves no listener', async () => {
  const controller = new AbortController();
  assert.equal(await unlessAborted(Promise.resolve(7), controller.signal), 7);
  await assert.rejects(unlessAborted(Promise.reject(new Error('broken')), controller.signal), /broken/);
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('unlessAborted lets one go and the work go on', async () => {
  const { promise: work, resolve } = Promise.withResolvers<number>();
  const controller = new AbortController();
  const impatient = unlessAborted(work, controller.signal);
  controller.abort();
  await assert.rejects(impatient, AbortedError);
  await assert.rejects(unlessAborted(work, controller.signal), AbortedError);
  resolve(7);
  assert.equal(await work, 7);
});
