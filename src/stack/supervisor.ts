import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, toAppError, UnavailableError } from '../runtime/errors.ts';
import { type Child, type ChildSpec, describeExit, startChild } from './child.ts';
import { poll } from './poll.ts';

/** A child process and how to tell that it is up. */
export type ServiceSpec = ChildSpec &
  Readonly<{
    /** True once the service answers; a throw counts as not yet. */
    ready: (signal: AbortSignal) => Promise<boolean>;
    readyTimeoutMs: number;
  }>;

/** Child processes that live and end together. */
export interface Stack {
  /** Starts a service after those started before, and resolves when it is ready. */
  start(spec: ServiceSpec): Promise<Child>;
  /** Stops one service on purpose. */
  stop(child: Child): Promise<void>;
}

export type StackOptions = Readonly<{ graceMs: number; sleep: Sleep }>;

const SIGNAL_LAG_MS = 100;

/**
 * Runs `work` with a stack of child processes. However it ends (done, failed, `signal` fired, a child died), every child
 * is stopped in the reverse order of its start (SIGTERM, SIGKILL after `graceMs`) and has ended before this returns. A
 * child that ends by itself aborts the signal that `work` was given and is the error thrown.
 */
export async function runStack<T>(
  options: StackOptions,
  signal: AbortSignal,
  work: (stack: Stack, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { graceMs, sleep } = options;
  const running: Child[] = [];
  const starting = new Set<Promise<Child>>();
  const failed = new AbortController();
  const linked = AbortSignal.any([signal, failed.signal]);
  let failure: UnavailableError | undefined;

  const watch = async (child: Child): Promise<void> => {
    const exit = await child.exit;
    // Ctrl-C reaches the children as well, and one of them may be gone before we hear of it ourselves.
    await sleep(SIGNAL_LAG_MS, linked).catch(() => {});
    if (!running.includes(child) || signal.aborted) return;
    failure ??= endedError(child.name, describeExit(exit), child.recentLines());
    failed.abort();
  };

  const stop = async (child: Child): Promise<void> => {
    const at = running.indexOf(child);
    if (at >= 0) running.splice(at, 1);
    await child.stop(graceMs, sleep);
  };

  const startOne = async (spec: ServiceSpec): Promise<Child> => {
    if (linked.aborted) throw new AbortedError();
    const child = await startChild(spec);
    running.push(child);
    void watch(child);
    const waiting = { what: `${spec.name} to be ready`, timeoutMs: spec.readyTimeoutMs, sleep };
    await poll(waiting, linked, async (probeSignal) => ((await spec.ready(probeSignal)) ? true : undefined));
    return child;
  };

  const start = async (spec: ServiceSpec): Promise<Child> => {
    const started = startOne(spec);
    starting.add(started);
    try {
      return await started;
    } finally {
      starting.delete(started);
    }
  };

  try {
    return await work({ start, stop }, linked);
  } catch (error) {
    throw failure ?? toAppError(error);
  } finally {
    // A start that runs beside the one that failed must not leave a child behind our back.
    failed.abort();
    await Promise.allSettled(starting);
    for (const child of running.toReversed()) await stop(child);
  }
}

function endedError(name: string, how: string, lines: readonly string[]): UnavailableError {
  const said = lines.slice(-20).map((line) => `  ${line}`);
  return new UnavailableError([`${name} ended by itself (${how}); it said last:`, ...said].join('\n'));
}
