import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, messageOf, toAppError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { parseBundle } from './bundle.ts';
import type { BundleHandler, BundleSource, BundleVersion } from './bundle-source.ts';
import { encodeInput } from './input-text.ts';
import type { Evaluation, PolicyEngine } from './policy-engine.ts';
import { startWasmPool, type WasmPool } from './wasm-pool.ts';
import type { WasmOutcome, WorkerDeath } from './wasm-worker.ts';

export interface PolicyMeter {
  /** A bundle was taken into force, or refused while the one before stays. */
  bundleLoaded(outcome: 'activated' | 'refused'): void;
  /** A policy worker ended and is being replaced. */
  workerReplaced(how: WorkerDeath): void;
}

export type WasmEngineOptions = Readonly<{
  /** Where the bundle comes from. */
  sources: readonly [BundleSource];
  /** Longest evaluation; a worker that takes longer is replaced. */
  timeoutMs: number;
  /** Threads that evaluate; each holds its own copy of the data. */
  workers?: number | undefined;
  /** Monotonic milliseconds. */
  now: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: PolicyMeter;
}>;

export interface WasmEngine extends PolicyEngine {
  /** Follows the source and activates each good version, until `signal` fires; then ends the workers. */
  run(signal: AbortSignal): Promise<void>;
  /** Takes and activates the first version there is; rejects with an AppError that says why not. For commands that do not stay. */
  load(signal: AbortSignal): Promise<void>;
  close(): void;
  /** The manifest's revision of the policy in force, else the bundle's digest; for people. */
  bundleRevision(): string;
  /** Decision paths of the policy in force, sorted. */
  entrypoints(): readonly string[];
  /** What is wrong with the newest version, even while an older one is in force. */
  problem(): string | undefined;
}

const startTimeoutMs = 30_000;
const maxMemoryBytes = 256 * 1024 * 1024;
// With one, whoever makes the policy hang makes every Check behind that one wait until it is replaced.
const defaultWorkers = 2;

type Active = Readonly<{ pool: WasmPool; revision: string; digest: string }>;

/** Evaluates a compiled policy in worker threads of this process; the main thread never runs policy code. */
export function createWasmEngine(options: WasmEngineOptions): WasmEngine {
  const { log, meter } = options;
  const [source] = options.sources;
  const { location } = source;
  let active: Active | undefined;
  let problem: string | undefined = `${location} is not loaded yet`;
  /** What the log was told last of it; undefined once a version was good. */
  let complaint: string | undefined;

  async function take({ bytes, key }: BundleVersion, signal: AbortSignal): Promise<void> {
    const bundle = await parseBundle(bytes, key);
    problem = undefined;
    if (bundle.digest === active?.digest) return;
    const pool = await startWasmPool(
      {
        ...options,
        source: { module: bundle.module, data: bundle.data, maxMemoryBytes },
        workers: options.workers ?? defaultWorkers,
        startTimeoutMs,
        onReplaced: (how) => meter.workerReplaced(how),
      },
      signal,
    );
    const before = active;
    active = Object.freeze({ pool, revision: bundle.revision || bundle.digest, digest: bundle.digest });
    before?.pool.retire();
    meter.bundleLoaded('activated');
    log.info({ location, revision: active.revision, entrypoints: [...pool.entrypoints] }, 'policy activated');
  }

  function refuse(error: unknown): void {
    const message = messageOf(error);
    const fields = { location, error: message };
    if (message === complaint) log.debug(fields, 'policy refused again');
    else if (active === undefined) log.error(fields, 'policy cannot be activated; Checks are denied');
    else log.error(fields, 'new policy refused; the last good one stays in force');
    problem = message;
    complaint = message;
    meter.bundleLoaded('refused');
  }

  async function run(signal: AbortSignal): Promise<void> {
    const handler: BundleHandler = {
      async take(version) {
        try {
          await take(version, signal);
          complaint = undefined;
        } catch (error) {
          if (!signal.aborted) refuse(error);
          throw toAppError(error);
        }
        return 'snapshot';
      },
      failed: refuse,
    };
    try {
      await source.follow(handler, signal);
    } finally {
      close();
    }
  }

  async function load(signal: AbortSignal): Promise<void> {
    const first = new AbortController();
    const either = AbortSignal.any([signal, first.signal]);
    let failure: unknown = new AbortedError();
    const handler: BundleHandler = {
      async take(version) {
        try {
          await take(version, signal);
          failure = undefined;
        } catch (error) {
          handler.failed(toAppError(error));
        }
        first.abort();
        return 'snapshot';
      },
      failed(error) {
        failure = error;
        problem = error.message;
        first.abort();
      },
    };
    await source.follow(handler, either);
    if (failure !== undefined) throw toAppError(failure);
  }

  function close(): void {
    active?.pool.close();
    active = undefined;
    problem = 'policy engine is closed';
  }

  async function evaluate(path: string, input: unknown, signal: AbortSignal): Promise<Evaluation> {
    if (active === undefined)
      return failure('engine_unavailable', `no policy is loaded: ${problem ?? location}`);
    if (signal.aborted) return failure('engine_timeout', 'no decision in time');
    const { pool, revision } = active;
    if (!pool.entrypoints.has(path)) {
      const known = [...pool.entrypoints].sort().join(', ');
      return failure('engine_error', `${path} is no entry point of the policy; it has ${known}`);
    }
    try {
      return toEvaluation(await pool.run(path, encodeInput(input), signal), revision);
    } catch (error) {
      return failure('engine_error', messageOf(error));
    }
  }

  return Object.freeze({
    name: 'wasm',
    evaluate,
    run,
    load,
    close,
    ready: () => active !== undefined,
    revision: () => active?.digest ?? '',
    bundleRevision: () => active?.revision ?? '',
    entrypoints: () => Object.freeze([...(active?.pool.entrypoints ?? [])].sort()),
    problem: () => problem,
  });
}

function toEvaluation(outcome: WasmOutcome, revision: string): Evaluation {
  return outcome.kind === 'result'
    ? readResultSet(outcome.text, revision)
    : failure(`engine_${outcome.kind}`, outcome.message);
}

/** `[]` when no rule produced a value, else one binding: `[{"result": …}]`. */
function readResultSet(text: string, revision: string): Evaluation {
  const set = JSON.parse(text) as unknown;
  if (!Array.isArray(set)) return failure('engine_error', 'policy gave no result set');
  const [first] = set as readonly unknown[];
  if (first === undefined) return Object.freeze({ kind: 'undefined', revision });
  if (typeof first !== 'object' || first === null || !('result' in first)) {
    return failure('engine_error', 'policy gave a malformed result set');
  }
  return Object.freeze({ kind: 'result', value: first.result, revision });
}

function failure(
  reason: 'engine_unavailable' | 'engine_timeout' | 'engine_error',
  message: string,
): Evaluation {
  return Object.freeze({ kind: 'failure', reason, message });
}
