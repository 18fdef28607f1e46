import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep } from '../../../src/runtime/abort.ts';
import { AbortedError, TimeoutError } from '../../../src/runtime/errors.ts';
import { poll } from '../../../src/stack/poll.ts';

const never = new AbortController().signal;
const options = { what: 'the thing', timeoutMs: 10_000, intervalMs: 1, sleep };

test('the first value that is not undefined is given, false and 0 included', async () => {
  const answers = [undefined, undefined, 0];
  assert.equal(await poll(options, never, async () => answers.shift()), 0);
  assert.equal(await poll(options, never, async () => false), false);
});

test('a probe that hangs does not outlive the timeout', async () => {
  const hanging = poll({ ...options, timeoutMs: 20 }, never, () => new Promise<undefined>(() => {}));
  await assert.rejects(hanging, (error) => {
    assert.ok(error instanceof TimeoutError);
    assert.equal(error.message, 'waited 20 ms for the thing');
    return true;
  });
});

test('the last failure is told, but not one that was overcome since', async () => {
  let calls = 0;
  const probe = (): Promise<undefined> => {
    calls += 1;
    return calls === 1 ? Promise.reject(new Error('refused')) : Promise.resolve(undefined);
  };
  await assert.rejects(poll({ ...options, timeoutMs: 50 }, never, probe), {
    message: 'waited 50 ms for the thing',
  });
  await assert.rejects(
    poll({ ...options, timeoutMs: 50 }, never, () => Promise.reject(new Error('refused'))),
    { message: 'waited 50 ms for the thing: refused' },
  );
});

test('an abort ends the wait at once', async () => {
  const controller = new AbortController();
  const waiting = poll({ ...options, intervalMs: 60_000 }, controller.signal, async () => undefined);
  controller.abort();
  await assert.rejects(waiting, AbortedError);
});
