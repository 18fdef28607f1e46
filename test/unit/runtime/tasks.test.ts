import assert from 'node:assert/strict';
import { test } from 'node:test';
import { aborted } from '../../../src/runtime/abort.ts';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { runTasks } from '../../../src/runtime/tasks.ts';

test('the first failure aborts the other tasks and is thrown after they rest', async () => {
  const order: string[] = [];
  await assert.rejects(
    runTasks(new AbortController().signal, [
      async (signal) => {
        await aborted(signal);
        order.push('other rests');
      },
      () => Promise.reject(new Error('listen failed')),
    ]),
    /listen failed/,
  );
  assert.deepEqual(order, ['other rests']);
});

test('an abort from outside ends all tasks without an error', async () => {
  const controller = new AbortController();
  const running = runTasks(controller.signal, [
    (signal) => aborted(signal),
    async (signal) => {
      await aborted(signal);
      throw new AbortedError();
    },
  ]);
  controller.abort();
  await running;
});

test('a task that is done early does not end the others', async () => {
  const controller = new AbortController();
  let finished = false;
  await runTasks(controller.signal, [
    () => Promise.resolve(),
    async () => {
      await Promise.resolve();
      finished = true;
    },
  ]);
  assert.equal(finished, true);
  assert.equal(controller.signal.aborted, false);
});
