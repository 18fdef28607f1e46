import { performance } from 'node:perf_hooks';
import { type Sleep, sleep } from '../runtime/abort.ts';

/** Time and chance, as every part of the program is given them. */
export type Clock = Readonly<{
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Milliseconds of a clock that never goes back. */
  monotonicNow: () => number;
  sleep: Sleep;
  /** A number in [0, 1). */
  random: () => number;
}>;

export const systemClock: Clock = Object.freeze({
  now: Date.now,
  monotonicNow: () => performance.now(),
  sleep,
  random: Math.random,
});
