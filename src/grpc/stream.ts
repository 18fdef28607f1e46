import type { Writable } from 'node:stream';
import { AbortedError } from '../runtime/errors.ts';

/** Settles as `promise` does, or rejects with AbortedError as soon as `signal` fires; leaves no listener behind. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new AbortedError());
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** Yields what `source` does until it ends; throws AbortedError as soon as `signal` fires, even while waiting. */
export async function* untilAborted<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  let done = false;
  try {
    for (;;) {
      const next = await unlessAborted(iterator.next(), signal);
      done = next.done === true;
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    // Not awaited: a generator that hangs in its own next() would hold its return() back as well.
    if (!done) iterator.return?.()?.catch(() => {});
  }
}

/**
 * Writes one message and waits until HTTP/2 has taken it, so that flow control reaches whoever makes the messages.
 * Rejects with AbortedError when `signal` fires or the call is over: grpc-js then never calls back.
 */
export function writeMessage(call: Writable, message: Buffer, signal: AbortSignal): Promise<void> {
  const written = new Promise<void>((resolve, reject) => {
    call.write(message, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(new AbortedError('the call is over', { cause: error }));
    });
  });
  return unlessAborted(written, signal);
}
