import { type Sleep, withDeadline } from '../runtime/abort.ts';
import { AbortedError, messageOf, TimeoutError } from '../runtime/errors.ts';

export type PollOptions = Readonly<{
  /** What is waited for, for the error: `envoy to be ready`. */
  what: string;
  timeoutMs: number;
  intervalMs?: number;
  sleep: Sleep;
}>;

/**
 * Calls `probe` until it gives something other than undefined. A probe that throws is asked again too: while a peer
 * starts, refused connections are the rule. After `timeoutMs` rejects with TimeoutError, which tells the last failure.
 */
export async function poll<T>(
  options: PollOptions,
  signal: AbortSignal,
  probe: (signal: AbortSignal) => Promise<T | undefined>,
): Promise<T> {
  const { what, timeoutMs, intervalMs = 50, sleep } = options;
  let last: unknown;
  const attempts = async (linked: AbortSignal): Promise<T> => {
    for (;;) {
      try {
        const value = await probe(linked);
        if (value !== undefined) return value;
        last = undefined;
      } catch (error) {
        if (linked.aborted) throw new AbortedError();
        last = error;
      }
      await sleep(intervalMs, linked);
    }
  };
  try {
    return await withDeadline(timeoutMs, signal, attempts);
  } catch (error) {
    if (!(error instanceof TimeoutError)) throw error;
    const why = last === undefined ? '' : `: ${messageOf(last)}`;
    throw new TimeoutError(`waited ${timeoutMs} ms for ${what}${why}`, { cause: last });
  }
}
