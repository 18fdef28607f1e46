import type { Sleep } from '../../src/runtime/abort.ts';
import { AbortedError } from '../../src/runtime/errors.ts';

/** A clock that only the test moves. */
export type ManualClock = Readonly<{
  now: () => number;
  sleep: Sleep;
  /** Moves on step by step, and lets whoever slept until a step do his work before the next. */
  advance(ms: number): Promise<void>;
}>;

export function createManualClock(start: number): ManualClock {
  let time = start;
  const sleepers = new Set<{ until: number; wake: () => void }>();

  return Object.freeze({
    now: () => time,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const onAbort = (): void => {
          sleepers.delete(sleeper);
          reject(new AbortedError());
        };
        const sleeper = {
          until: time + ms,
          wake() {
            sleepers.delete(sleeper);
            signal.removeEventListener('abort', onAbort);
            resolve();
          },
        };
        if (signal.aborted) return onAbort();
        signal.addEventListener('abort', onAbort, { once: true });
        sleepers.add(sleeper);
      }),
    async advance(ms) {
      const end = time + ms;
      await settled();
      for (;;) {
        const next = Math.min(...[...sleepers].map(({ until }) => until));
        if (!(next <= end)) break;
        time = Math.max(time, next);
        for (const sleeper of sleepers) if (sleeper.until <= time) sleeper.wake();
        await settled();
      }
      time = end;
      await settled();
    },
  } satisfies ManualClock);
}

/** Everything that is ready to run has run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
