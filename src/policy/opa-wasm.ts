import { createPublicKey, type KeyObject } from 'node:crypto';
import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, MalformedError, messageOf, toAppError, UnavailableError } from '../runtime/errors.ts';
import { type FileEvent, watchFiles } from '../runtime/file-watch.ts';
import type { Logger } from '../runtime/log.ts';
import { maxBundleBytes, parseBundle } from './bundle.ts';
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
  /** An OPA bundle built by `opa build -t wasm`. */
  file: string;
  /** A public key in PEM, watched like the bundle, which has to be signed by it; absent: bundles are not signed. */
  verificationKey?: string | undefined;
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
  /** Watches the bundle file and activates each good version, until `signal` fires; then ends the workers. */
  run(signal: AbortSignal): Promise<void>;
  /** Reads and activates the file once; rejects with an AppError that says why not. For commands that do not stay. */
  load(signal: AbortSignal): Promise<void>;
  close(): void;
  /** The manifest's revision of the policy in force, else the bundle's digest; for people. */
  bundleRevision(): string;
  /** Decision paths of the policy in force, sorted. */
  entrypoints(): readonly string[];
  /** What is wrong with the newest version of the file, even while an older one is in force. */
  problem(): string | undefined;
}

const pollMs = 250;
const startTimeoutMs = 30_000;
const minRsaBits = 2048;
const maxMemoryBytes = 256 * 1024 * 1024;
// With one, whoever makes the policy hang makes every Check behind that one wait until it is replaced.
const defaultWorkers = 2;

type Active = Readonly<{ pool: WasmPool; revision: string; digest: string }>;

/** Evaluates a compiled policy in worker threads of this process; the main thread never runs policy code. */
export function createWasmEngine(options: WasmEngineOptions): WasmEngine {
  const { file, verificationKey, log, meter } = options;
  const paths = verificationKey === undefined ? [file] : [file, verificationKey];
  const watch = { paths, pollMs, maxBytes: maxBundleBytes, sleep: options.sleep };
  let active: Active | undefined;
  let problem: string | undefined = `${file} is not loaded yet`;

  async function take([bundleFile, keyFile]: readonly FileEvent[], signal: AbortSignal): Promise<void> {
    const key = verificationKey === undefined ? undefined : parseKey(verificationKey, keyFile);
    const bundle = await parseBundle(contentOf(file, bundleFile), key);
    problem = undefined;
    if (bundle.digest === active?.digest) return;
    const source = { module: bundle.module, data: bundle.data, maxMemoryBytes };
    const pool = await startWasmPool(
      {
        ...options,
        source,
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
    log.info({ file, revision: active.revision, entrypoints: [...pool.entrypoints] }, 'policy activated');
  }

  function refuse(error: unknown): void {
    problem = messageOf(error);
    meter.bundleLoaded('refused');
    if (active === undefined)
      log.error({ file, error: problem }, 'policy cannot be activated; Checks are denied');
    else log.error({ file, error: problem }, 'new policy refused; the last good one stays in force');
  }

  async function run(signal: AbortSignal): Promise<void> {
    try {
      for await (const events of watchFiles(watch, signal)) {
        try {
          await take(events, signal);
        } catch (error) {
          if (signal.aborted) return;
          refuse(error);
        }
      }
    } finally {
      close();
    }
  }

  async function load(signal: AbortSignal): Promise<void> {
    for await (const events of watchFiles(watch, signal)) {
      try {
        await take(events, signal);
      } catch (error) {
        problem = messageOf(error);
        throw toAppError(error);
      }
      return;
    }
    throw new AbortedError();
  }

  function close(): void {
    active?.pool.close();
    active = undefined;
    problem = 'policy engine is closed';
  }

  async function evaluate(path: string, input: unknown, signal: AbortSignal): Promise<Evaluation> {
    if (active === undefined) return failure('engine_unavailable', `no policy is loaded: ${problem ?? file}`);
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

function contentOf(path: string, event: FileEvent | undefined): Buffer {
  if (event?.kind === 'content') return event.bytes;
  throw new UnavailableError(event?.kind === 'unreadable' ? event.message : `${path} does not exist`);
}

function parseKey(path: string, event: FileEvent | undefined): KeyObject {
  const pem = contentOf(path, event);
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (error) {
    throw new MalformedError(`verification key ${path} is no public key in PEM`, { cause: error });
  }
  if (key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < minRsaBits) {
    throw new MalformedError(`verification key ${path} is an RSA key of less than ${minRsaBits} bits`);
  }
  return key;
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
