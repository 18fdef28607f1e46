import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createLatest } from '../../../src/runtime/latest.ts';
import { type MergedEvent, mergeEvents } from '../../../src/sds/stream-events.ts';

/** Requests that are given one by one; `pulled` counts how many the reader has asked for. */
function createRequests() {
  const queue: (() => string | undefined)[] = [];
  let wake = (): void => {};
  let pulled = 0;
  async function* requests() {
    for (;;) {
      const next = queue.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      const request = next();
      if (request === undefined) return;
      pulled += 1;
      yield request;
    }
  }
  const add = (next: () => string | undefined): void => {
    queue.push(next);
    wake();
  };
  return {
    requests: requests(),
    give: (request: string) => add(() => request),
    end: () => add(() => undefined),
    fail: (error: Error) =>
      add(() => {
        throw error;
      }),
    pulled: () => pulled,
  };
}

const text = (event: MergedEvent<string> | undefined) =>
  event?.kind === 'request' ? event.request : event?.kind;

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await nextTurn();
}

describe("a stream's events", () => {
  test('are its requests and the changes of the snapshot', async () => {
    const source = createRequests();
    const latest = createLatest(0);
    const events = mergeEvents(
      source.requests,
      (signal) => [latest.changes(signal)],
      new AbortController().signal,
    );
    assert.equal(text((await events.next()).value ?? undefined), 'snapshot');
    source.give('one');
    assert.equal(text((await events.next()).value ?? undefined), 'one');
    latest.set(1);
    assert.equal(text((await events.next()).value ?? undefined), 'snapshot');
    source.end();
    assert.equal((await events.next()).done, true);
  });

  test('hold one change and one request for a slow reader, however many there were', async () => {
    const source = createRequests();
    const latest = createLatest(0);
    const events = mergeEvents(
      source.requests,
      (signal) => [latest.changes(signal)],
      new AbortController().signal,
    );
    await events.next();
    for (let i = 1; i <= 50; i += 1) {
      latest.set(i);
      source.give(`r${i}`);
      await nextTurn();
    }
    await settle();
    assert.equal(source.pulled(), 1);
    const seen = [await events.next(), await events.next(), await events.next()].map(({ value }) =>
      text(value ?? undefined),
    );
    assert.deepEqual(seen, ['r1', 'snapshot', 'r2']);
    await events.return();
  });

  test('end when the signal fires, also while nothing happens', async () => {
    const source = createRequests();
    const controller = new AbortController();
    const events = mergeEvents(
      source.requests,
      (signal) => [createLatest(0).changes(signal)],
      controller.signal,
    );
    await events.next();
    const pending = events.next();
    controller.abort();
    assert.equal((await pending).done, true);
  });

  test('end with the error of the requests', async () => {
    const source = createRequests();
    const events = mergeEvents(
      source.requests,
      (signal) => [createLatest(0).changes(signal)],
      new AbortController().signal,
    );
    await events.next();
    const pending = events.next();
    source.fail(new Error('broken'));
    await assert.rejects(pending, /broken/);
  });

  test('let go of the snapshot and of the requests when the reader leaves', async () => {
    const source = createRequests();
    const latest = createLatest(0);
    let ended = false;
    async function* changes(signal: AbortSignal) {
      yield* latest.changes(signal);
      ended = true;
    }
    const events = mergeEvents(source.requests, (signal) => [changes(signal)], new AbortController().signal);
    await events.next();
    await events.return();
    await settle();
    assert.ok(ended);
  });
});
