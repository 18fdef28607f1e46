import assert from 'node:assert/strict';
import { EventEmitter, getEventListeners } from 'node:events';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { unlessAborted, untilAborted, writeMessage } from '../../../src/grpc/stream.ts';
import { AbortedError } from '../../../src/runtime/errors.ts';

const pending = new Promise<never>(() => {});

describe('waiting unless aborted', () => {
  it('settles as the promise does and leaves no listener behind', async () => {
    const { signal } = new AbortController();
    assert.equal(await unlessAborted(Promise.resolve(1), signal), 1);
    await assert.rejects(unlessAborted(Promise.reject(new Error('no')), signal), { message: 'no' });
    await Promise.resolve();
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('rejects once the signal fires, or when it already has', async () => {
    const controller = new AbortController();
    const waiting = unlessAborted(pending, controller.signal);
    controller.abort();
    await assert.rejects(waiting, AbortedError);
    await assert.rejects(unlessAborted(pending, controller.signal), AbortedError);
  });

  it('does not leave the rejection of a promise that lost unhandled', async () => {
    const { promise, reject } = Promise.withResolvers<never>();
    const controller = new AbortController();
    const waiting = unlessAborted(promise, controller.signal);
    controller.abort();
    await assert.rejects(waiting, AbortedError);
    reject(new Error('late'));
    await new Promise((resolve) => setImmediate(resolve));
  });
});

describe('iterating until aborted', () => {
  it('yields everything and closes its source when left early', async () => {
    let closed = 0;
    async function* source(): AsyncIterable<number> {
      try {
        yield 1;
        yield 2;
      } finally {
        closed += 1;
      }
    }
    const { signal } = new AbortController();
    const all: number[] = [];
    for await (const n of untilAborted(source(), signal)) all.push(n);
    assert.deepEqual(all, [1, 2]);
    for await (const _ of untilAborted(source(), signal)) break;
    assert.equal(closed, 2);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('throws when the signal fires while its source hangs', async () => {
    const controller = new AbortController();
    async function* source(): AsyncIterable<number> {
      yield 1;
      await pending;
    }
    await assert.rejects(async () => {
      for await (const _ of untilAborted(source(), controller.signal)) setImmediate(() => controller.abort());
    }, AbortedError);
  });
});

describe('writing a message', () => {
  it('waits until it is taken', async () => {
    const taken = new EventEmitter();
    const call = new Writable({ write: (_, __, done) => void taken.once('take', done) });
    let written = false;
    const writing = writeMessage(call, Buffer.from('x'), new AbortController().signal).finally(() => {
      written = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(written, false);
    taken.emit('take');
    await writing;
  });

  it('gives up when the signal fires or the call is over', async () => {
    const stuck = new Writable({ write: () => {} });
    const controller = new AbortController();
    const writing = writeMessage(stuck, Buffer.from('x'), controller.signal);
    controller.abort();
    await assert.rejects(writing, AbortedError);
    const over = new Writable({ write: () => {} });
    over.on('error', () => {});
    over.destroy();
    await assert.rejects(writeMessage(over, Buffer.from('x'), new AbortController().signal), AbortedError);
  });
});
