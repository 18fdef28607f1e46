import { MessageChannel, Worker } from 'node:worker_threads';
import type { Sleep } from '../../runtime/abort.ts';
import {
  MalformedError,
  messageOf,
  TimeoutError,
  toAppError,
  UnavailableError,
} from '../../runtime/errors.ts';
import type { PolicyWorkerData, PolicyWorkerNews } from './opa-wasm-worker.ts';
import { createMainEnd, createSharedMemory } from './wasm-channel.ts';
import type { WasmPoliciesSource } from './wasm-policies.ts';

/** One evaluation on its way through a worker. `settle` may be called again; only the first call counts. */
export interface WasmJob {
  readonly decision: string;
  readonly input: string;
  settled(): boolean;
  settle(outcome: WasmOutcome): void;
}

export type WasmOutcome =
  | Readonly<{ kind: 'result'; text: string }>
  | Readonly<{ kind: 'timeout' | 'unavailable' | 'error'; message: string }>;

export type WorkerDeath = 'timeout' | 'crash';

export type WasmWorkerOptions = Readonly<{
  source: WasmPoliciesSource;
  /** Longest evaluation; after that the thread is ended. */
  timeoutMs: number;
  /** Longest start: thread, module and data. */
  startTimeoutMs: number;
  now: () => number;
  sleep: Sleep;
  /** Evaluations have ended, so there is room. */
  onProgress: () => void;
  /** The evaluation under way takes long. Those behind it have not begun and are given back, for other workers. */
  onSlow: (givenBack: readonly WasmJob[]) => void;
  /** The thread is gone for good. The evaluation at fault is settled; the others wait for another worker. */
  onDeath: (how: WorkerDeath, unfinished: readonly WasmJob[]) => void;
}>;

export interface WasmWorker {
  readonly entrypoints: ReadonlyMap<string, number>;
  /** How many evaluations it takes more; none while one takes long. */
  room(): number;
  /** How many evaluations it has not answered. */
  load(): number;
  submit(job: WasmJob): void;
  /** Spares the worker an evaluation that nobody waits for any more. */
  cancel(job: WasmJob): void;
  /** Ends the thread; unfinished evaluations are settled as unavailable. */
  close(): void;
}

// The extension is that of this file: .ts when Node runs the sources, .js in dist/.
const workerUrl = new URL(
  `./opa-wasm-worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`,
  import.meta.url,
);

/** The part of the longest evaluation after which the others do not wait for it any more. */
const patience = 1 / 8;

/** Starts a thread and resolves when it has loaded the policy; rejects with an AppError when it cannot. */
export async function startWasmWorker(options: WasmWorkerOptions, signal: AbortSignal): Promise<WasmWorker> {
  const { port1, port2 } = new MessageChannel();
  const shared = createSharedMemory();
  const workerData: PolicyWorkerData = { source: options.source, memory: { shared, port: port2 } };
  // No resourceLimits: with a small heap limit, each growth of wasm memory runs a full garbage collection (16 times
  // slower for a large evaluation), and the wasm memory has a limit of its own.
  const thread = new Worker(workerUrl, {
    workerData,
    transferList: [port2],
    env: {},
    stdout: true,
    stderr: true,
  });
  thread.stdout.resume();
  thread.stderr.resume();
  const end = createMainEnd({ shared, port: port1 });
  const stop = new AbortController();

  const patienceMs = options.timeoutMs * patience;
  /** Without a job: given back, and to be passed over by the worker. */
  const inFlight: { ticket: number; job: WasmJob | undefined }[] = [];
  let headSince = 0;
  let slow = false;
  let draining = false;
  let watching = false;

  function die(how: WorkerDeath, message: string): void {
    if (stop.signal.aborted) return;
    release();
    const head = inFlight.shift()?.job;
    head?.settle({ kind: how === 'timeout' ? 'timeout' : 'error', message });
    const unfinished = inFlight
      .splice(0)
      .map(({ job }) => job)
      .filter((job) => job !== undefined);
    options.onDeath(how, unfinished);
  }

  function release(): void {
    stop.abort();
    end.wake();
    port1.close();
    void thread.terminate();
  }

  /** Settles what has ended; true if anything had. */
  function receive(): boolean {
    let any = false;
    for (let reply = end.receive(); reply !== undefined; reply = end.receive()) {
      any = true;
      const job = inFlight.shift()?.job;
      headSince = options.now();
      slow = false;
      if (reply.kind === 'result') job?.settle({ kind: 'result', text: reply.text });
      else job?.settle({ kind: 'error', message: reply.text });
    }
    if (any) options.onProgress();
    return any;
  }

  async function drain(): Promise<void> {
    if (draining) return;
    draining = true;
    while (!stop.signal.aborted && inFlight.length > 0) {
      if (!receive()) await end.wait();
    }
    draining = false;
  }

  function giveBack(): void {
    slow = true;
    const givenBack: WasmJob[] = [];
    for (const entry of inFlight.slice(1)) {
      if (entry.job === undefined || !end.cancel(entry.ticket)) continue;
      givenBack.push(entry.job);
      entry.job = undefined;
    }
    options.onSlow(givenBack);
  }

  async function watch(): Promise<void> {
    if (watching) return;
    watching = true;
    while (!stop.signal.aborted && inFlight.length > 0) {
      const left = headSince + options.timeoutMs - options.now();
      if (left > 0) {
        if (!slow && left <= options.timeoutMs - patienceMs && !receive()) giveBack();
        await options.sleep(Math.min(left, patienceMs), stop.signal).catch(() => {});
      } else if (!receive()) {
        die('timeout', `policy did not answer within ${options.timeoutMs} ms`);
      }
    }
    watching = false;
  }

  const entrypoints = await started(thread, options, signal).catch((error: unknown) => {
    release();
    throw toAppError(error);
  });
  thread.on('error', (error) => die('crash', `policy worker failed: ${messageOf(error)}`));
  thread.on('exit', () => die('crash', 'policy worker ended'));

  return Object.freeze({
    entrypoints,
    room: () => (stop.signal.aborted || slow ? 0 : end.room()),
    load: () => inFlight.length,
    submit(job: WasmJob) {
      if (inFlight.length === 0) headSince = options.now();
      inFlight.push({ ticket: end.send(entrypoints.get(job.decision) ?? 0, job.input), job });
      void drain();
      void watch();
    },
    cancel(job: WasmJob) {
      const entry = inFlight.find((one) => one.job === job);
      if (entry !== undefined) end.cancel(entry.ticket);
    },
    close() {
      if (stop.signal.aborted) return;
      release();
      for (const { job } of inFlight.splice(0))
        job?.settle({ kind: 'unavailable', message: 'policy engine is closed' });
    },
  });
}

/** The worker's first message, bounded in time. */
async function started(
  thread: Worker,
  options: WasmWorkerOptions,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const stop = new AbortController();
  const news = new Promise<PolicyWorkerNews>((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', (error) =>
      reject(new UnavailableError('policy worker failed to start', { cause: error })),
    );
    thread.once('exit', () => reject(new UnavailableError('policy worker ended while it was starting')));
  });
  const late = options.sleep(options.startTimeoutMs, AbortSignal.any([signal, stop.signal])).then(() => {
    throw new TimeoutError(`policy did not load within ${options.startTimeoutMs} ms`);
  });
  try {
    const first = await Promise.race([news, late]);
    if (first.kind === 'refused') throw new MalformedError(first.message);
    return first.entrypoints;
  } finally {
    stop.abort();
  }
}
