import { AbortedError } from './errors.ts';

/** A value that changes over time, with any number of readers; a slow reader skips to the newest value. */
export interface Latest<T> {
  current(): T;
  set(value: T): void;
  /** Yields the current value, then each newer one, conflated; ends when `signal` fires. */
  changes(signal: AbortSignal): AsyncIterable<T>;
}

export function createLatest<T>(initial: T): Latest<T> {
  let value = initial;
  let version = 0;
  const wakers = new Set<() => void>();

  async function* changes(signal: AbortSignal): AsyncIterable<T> {
    let seen = -1;
    while (!signal.aborted) {
      if (seen !== version) {
        seen = version;
        yield value;
        continue;
      }
      try {
        await change(signal);
      } catch (error) {
        if (error instanceof AbortedError) return;
        throw error;
      }
    }
  }

  function change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = (): void => {
        wakers.delete(wake);
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      const onAbort = (): void => {
        wakers.delete(wake);
        reject(new AbortedError());
      };
      wakers.add(wake);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  return {
    current: () => value,
    set(next) {
      value = next;
      version += 1;
      for (const wake of wakers) wake();
    },
    changes,
  };
}
