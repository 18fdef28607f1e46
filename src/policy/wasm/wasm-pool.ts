import type { Sleep } from '../../runtime/abort.ts';
import { nextDelayMs } from '../../runtime/backoff.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/log.ts';
import type { WasmPoliciesSource } from './wasm-policies.ts';
import {
  startWasmWorker,
  type WasmJob,
  type WasmOutcome,
  type WasmWorker,
  type WorkerDeath,
} from './wasm-worker.ts';

export type WasmPoolOptions = Readonly<{
  source: WasmPoliciesSource;
  workers: number;
  timeoutMs: number;
  startTimeoutMs: number;
  now: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  onReplaced: (how: WorkerDeath) => void;
}>;

/** Workers that hold the same policy. */
export interface WasmPool {
  readonly entrypoints: ReadonlySet<string>;
  /** Evaluates in the next free worker. Never rejects; `signal` ends the wait as a timeout. */
  run(decision: string, input: string, signal: AbortSignal): Promise<WasmOutcome>;
  /** Takes no more work, and ends the threads once what it has is answered. */
  retire(): void;
  close(): void;
}

/**
 * The place of one worker and those that replace it, with the deaths since it last answered; none means that it may be
 * replaced at once. That others answer says nothing about this one.
 */
type Seat = { deaths: number };

const maxQueued = 4096;
const restartBackoff = Object.freeze({ minMs: 100, maxMs: 5_000 });

/** Starts every worker; rejects with an AppError if the first one cannot load the policy. */
export async function startWasmPool(options: WasmPoolOptions, signal: AbortSignal): Promise<WasmPool> {
  const stop = new AbortController();
  const workers = new Set<WasmWorker>();
  let queue: WasmJob[] = [];
  let retired = false;

  function dispatch(): void {
    while (queue.length > 0) {
      const worker = roomiest(workers);
      if (worker === undefined) return;
      const job = queue.shift();
      if (job !== undefined && !job.settled()) worker.submit(job);
    }
    if (retired && [...workers].every((worker) => worker.load() === 0)) close();
  }

  async function start(seat: Seat, until: AbortSignal): Promise<WasmWorker> {
    const worker = await startWasmWorker(
      {
        ...options,
        onProgress() {
          seat.deaths = 0;
          dispatch();
        },
        onSlow(givenBack) {
          queue = [...givenBack, ...queue];
          dispatch();
        },
        onDeath(how, unfinished) {
          workers.delete(worker);
          seat.deaths += 1;
          options.onReplaced(how);
          options.log.warn({ how, waiting: unfinished.length }, 'policy worker is replaced');
          queue = [...unfinished, ...queue];
          void fill(seat);
        },
      },
      until,
    );
    return worker;
  }

  async function fill(seat: Seat): Promise<void> {
    while (!stop.signal.aborted) {
      try {
        if (seat.deaths > 1)
          await options.sleep(nextDelayMs(restartBackoff, seat.deaths - 2, options.random), stop.signal);
        const worker = await start(seat, stop.signal);
        if (stop.signal.aborted) worker.close();
        else workers.add(worker);
        dispatch();
        return;
      } catch (error) {
        if (stop.signal.aborted) return;
        seat.deaths += 1;
        options.log.error({ error: messageOf(error) }, 'policy worker cannot be started');
      }
    }
  }

  function close(): void {
    if (stop.signal.aborted) return;
    stop.abort();
    for (const worker of workers) worker.close();
    workers.clear();
    for (const job of queue.splice(0))
      job.settle({ kind: 'unavailable', message: 'policy engine is closed' });
  }

  const first = await start({ deaths: 0 }, signal);
  workers.add(first);
  const entrypoints: ReadonlySet<string> = new Set(first.entrypoints.keys());
  for (let i = 1; i < options.workers; i++) void fill({ deaths: 0 });

  return Object.freeze({
    entrypoints,
    close,
    retire() {
      retired = true;
      dispatch();
    },
    run(decision: string, input: string, until: AbortSignal) {
      if (stop.signal.aborted)
        return Promise.resolve({ kind: 'unavailable', message: 'policy engine is closed' } as const);
      if (queue.length >= maxQueued) queue = queue.filter((job) => !job.settled());
      if (queue.length >= maxQueued) {
        return Promise.resolve({
          kind: 'unavailable',
          message: 'too many evaluations wait for the policy',
        } as const);
      }
      return new Promise<WasmOutcome>((resolve) => {
        const job = createJob(decision, input, until, resolve, () => {
          for (const worker of workers) worker.cancel(job);
        });
        queue.push(job);
        dispatch();
      });
    },
  });
}

function createJob(
  decision: string,
  input: string,
  signal: AbortSignal,
  resolve: (outcome: WasmOutcome) => void,
  onCancel: () => void,
): WasmJob {
  let settled = false;
  const onAbort = (): void => {
    settle({ kind: 'timeout', message: 'no decision in time' });
    onCancel();
  };
  function settle(outcome: WasmOutcome): void {
    if (settled) return;
    settled = true;
    signal.removeEventListener('abort', onAbort);
    resolve(outcome);
  }
  signal.addEventListener('abort', onAbort);
  return { decision, input, settled: () => settled, settle };
}

function roomiest(workers: ReadonlySet<WasmWorker>): WasmWorker | undefined {
  let best: WasmWorker | undefined;
  for (const worker of workers) {
    if (worker.room() > 0 && (best === undefined || worker.load() < best.load())) best = worker;
  }
  return best;
}
