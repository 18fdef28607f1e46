import { AbortedError, TimeoutError } from './errors.ts';

/** Waits `ms` milliseconds; rejects with AbortedError as soon as `signal` fires. The only sleep of the program. */
export type Sleep = (ms: number, signal: AbortSignal) => Promise<void>;

export const sleep: Sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(new AbortedError());
      return;
    }
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(new AbortedError());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });

/** Resolves when `signal` fires, at once if it already has. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/**
 * Runs `work` under a signal that fires after `ms` milliseconds or when `signal` does. Rejects with TimeoutError in
 * the first case and AbortedError in the second, even when `work` ignores its signal.
 */
export async function withDeadline<T>(
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (signal.aborted) throw new AbortedError();
  const controller = new AbortController();
  let onAbort = (): void => {};
  let timer: NodeJS.Timeout | undefined;
  const bound = new Promise<never>((_, reject) => {
    onAbort = () => {
      reject(new AbortedError());
      controller.abort();
    };
    timer = setTimeout(() => {
      reject(new TimeoutError(`no answer within ${ms} ms`));
      controller.abort();
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work(controller.signal), bound]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/**
 * The result of shared work, or AbortedError as soon as `signal` fires; the work itself goes on for those who still wait
 * for it.
 */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const onAbort = (): void => reject(new AbortedError());
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  return promise;
}
