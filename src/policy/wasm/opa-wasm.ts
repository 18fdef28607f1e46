import { createHash } from 'node:crypto';
import type { Sleep } from '../../runtime/abort.ts';
import { AbortedError, type AppError, messageOf, toAppError } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/log.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { maxWasmMemoryBytes } from '../bundle/bundle.ts';
import { createBundleJobs } from '../bundle/bundle-jobs.ts';
import { type BundleState, createBundleSet, type NamedBundle, revisionOf } from '../bundle/bundle-set.ts';
import {
  BundleError,
  type BundleHandler,
  type BundleSource,
  type BundleVersion,
  type TakenBundle,
} from '../bundle/bundle-source.ts';
import { encodeInput } from '../input-text.ts';
import { type BundleRevisions, type Evaluation, failure, type PolicyEngine } from '../policy-engine.ts';
import { startWasmPool, type WasmPool } from './wasm-pool.ts';
import type { WasmOutcome, WorkerDeath } from './wasm-worker.ts';

export interface PolicyMeter {
  /** A version of a bundle was taken into force, or refused while the one before stays. */
  bundleLoaded(bundle: string, outcome: 'activated' | 'refused'): void;
  /** A policy worker ended and is being replaced. */
  workerReplaced(how: WorkerDeath): void;
}

export type WasmEngineOptions = Readonly<{
  /** Where the bundles come from; their names are unique. */
  sources: readonly BundleSource[];
  /** Longest evaluation; a worker that takes longer is replaced. */
  timeoutMs: number;
  /** Threads that evaluate; each holds its own copy of the data. */
  workers?: number | undefined;
  /** Monotonic milliseconds. */
  now: () => number;
  /** Milliseconds since the epoch. */
  epochNow: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: PolicyMeter;
}>;

export interface WasmEngine extends PolicyEngine {
  /** Follows the sources and activates each good version, until `signal` fires; then ends the workers. */
  run(signal: AbortSignal): Promise<void>;
  /** Takes the first version of each bundle and activates them; rejects with a BundleError. For commands that do not stay. */
  load(signal: AbortSignal): Promise<void>;
  close(): void;
  /** Every bundle, in force or not, in the order of the sources. */
  bundles(): readonly BundleState[];
  /** Decision paths of the policies in force, sorted. */
  entrypoints(): readonly string[];
  /** What is wrong with the newest version of a bundle, even while an older one is in force. */
  problem(): string | undefined;
}

const startTimeoutMs = 30_000;
// With one, whoever makes the policy hang makes every Check behind that one wait until it is replaced.
const defaultWorkers = 2;

/** One set of bundles, and the workers that hold it. */
type Active = Readonly<{ pool: WasmPool; digest: string; revisions: BundleRevisions }>;

/**
 * Evaluates compiled policies in worker threads of this process; the main thread never runs policy code. All bundles make
 * one set: it comes into force as a whole, and an evaluation is answered by the set that it began under.
 */
export function createWasmEngine(options: WasmEngineOptions): WasmEngine {
  const { sources, log, meter } = options;
  const jobs = createBundleJobs(options);
  let active: Active | undefined;
  let closed = false;
  /** What the log was told last of a bundle; nothing once a version was good. */
  const complaints = new Map<string, string>();
  const set = createBundleSet({
    names: sources.map(({ name }) => name),
    activate,
    onActivated: (name) => meter.bundleLoaded(name, 'activated'),
    now: options.epochNow,
  });

  async function activate(bundles: readonly NamedBundle[], signal: AbortSignal): Promise<void> {
    const [only, ...others] = bundles.map(({ bundle }) => bundle);
    const data =
      only !== undefined && others.length === 0
        ? only.data
        : await jobs.merge(
            bundles.map(({ bundle }) => bundle),
            signal,
          );
    const modules = bundles.flatMap(({ bundle }) => bundle.modules.map(({ module }) => module));
    const pool = await startWasmPool(
      {
        ...options,
        source: { modules, data, maxMemoryBytes: maxWasmMemoryBytes },
        workers: options.workers ?? defaultWorkers,
        startTimeoutMs,
        onReplaced: (how) => meter.workerReplaced(how),
      },
      signal,
    );
    const before = active;
    const revisions = Object.fromEntries(
      bundles.map(({ name, bundle }) => [name, Object.freeze({ revision: revisionOf(bundle) })]),
    );
    active = Object.freeze({ pool, digest: digestOf(bundles), revisions: Object.freeze(revisions) });
    before?.pool.retire();
    log.info({ bundles: revisions, entrypoints: [...pool.entrypoints] }, 'policy activated');
  }

  let turn: Promise<unknown> = Promise.resolve();
  /** One version after the other, whichever source it is from. */
  function take(name: string, version: BundleVersion, signal: AbortSignal): Promise<TakenBundle> {
    const mine = turn.then(async () => {
      if (signal.aborted) throw new AbortedError();
      const bundle = await jobs.parse(version, set.base(name), signal).catch((error: unknown) => {
        set.fail(name, toAppError(error));
        throw error;
      });
      if ((await set.offer(name, bundle, signal)) === 'waiting')
        log.info({ bundle: name }, 'bundle waits for the others of the policy');
      return bundle;
    });
    turn = mine.catch(() => {});
    return mine;
  }

  function report({ name, location }: BundleSource, { message: error }: AppError): void {
    meter.bundleLoaded(name, 'refused');
    const fields = { bundle: name, location, error };
    if (complaints.get(name) === error) log.debug(fields, 'policy refused again');
    else if (active === undefined) log.error(fields, 'policy cannot be activated; Checks are denied');
    else log.error(fields, 'new policy refused; the last good one stays in force');
    complaints.set(name, error);
  }

  async function follow(source: BundleSource, signal: AbortSignal): Promise<void> {
    const handler: BundleHandler = {
      async take(version) {
        try {
          const taken = await take(source.name, version, signal);
          complaints.delete(source.name);
          return taken;
        } catch (error) {
          const reason = toAppError(error);
          if (!signal.aborted) report(source, reason);
          throw reason;
        }
      },
      failed(error) {
        set.fail(source.name, error);
        report(source, error);
      },
    };
    await source.follow(handler, signal);
  }

  async function run(signal: AbortSignal): Promise<void> {
    try {
      await Promise.all(sources.map((source) => follow(source, signal)));
    } finally {
      close();
    }
  }

  /** The first version of one source. */
  async function loadFrom(source: BundleSource, signal: AbortSignal): Promise<void> {
    const first = new AbortController();
    let failure: AppError | undefined = new AbortedError();
    const end = (reason: AppError | undefined): void => {
      failure = reason;
      first.abort();
    };
    const handler: BundleHandler = {
      async take(version) {
        try {
          const taken = await take(source.name, version, signal);
          end(undefined);
          return taken;
        } catch (error) {
          end(toAppError(error));
          throw toAppError(error);
        }
      },
      failed(error) {
        set.fail(source.name, error);
        end(error);
      },
    };
    await source.follow(handler, AbortSignal.any([signal, first.signal]));
    if (failure !== undefined) throw new BundleError(source.name, failure);
  }

  /** Settles when no source is followed any more: nothing comes into force behind the caller's back. */
  async function load(signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    let first: unknown;
    const one = async (source: BundleSource): Promise<void> => {
      try {
        await loadFrom(source, either);
      } catch (error) {
        first ??= error;
        stop.abort();
      }
    };
    await Promise.all(sources.map(one));
    if (first !== undefined) throw toAppError(first);
  }

  function close(): void {
    closed = true;
    active?.pool.close();
    active = undefined;
  }

  async function evaluate(path: string, input: unknown, signal: AbortSignal): Promise<Evaluation> {
    if (active === undefined) {
      return failure('engine_unavailable', `no policy is loaded: ${problem() ?? 'bundles are missing'}`);
    }
    const { pool, revisions } = active;
    if (signal.aborted) return failure('engine_timeout', 'no decision in time', revisions);
    if (!pool.entrypoints.has(path)) {
      const known = [...pool.entrypoints].sort().join(', ');
      return failure('engine_error', `${path} is no entry point of the policy; it has ${known}`, revisions);
    }
    try {
      return toEvaluation(await pool.run(path, encodeInput(input), signal), revisions);
    } catch (error) {
      return failure('engine_error', messageOf(error), revisions);
    }
  }

  function problem(): string | undefined {
    if (closed) return 'policy engine is closed';
    const problems = set.states().flatMap(({ name, problem: text }) => {
      if (text === undefined) return [];
      return [sources.length === 1 ? text : `bundle ${name}: ${text}`];
    });
    return problems.length === 0 ? undefined : problems.join('; ');
  }

  return Object.freeze({
    name: 'wasm',
    evaluate,
    run,
    load,
    close,
    ready: () => active !== undefined,
    revision: () => active?.digest ?? '',
    bundles: () => set.states(),
    entrypoints: () => Object.freeze([...(active?.pool.entrypoints ?? [])].sort()),
    problem,
  });
}

/** Equal sets have equal digests, and so have equal decisions. */
function digestOf(bundles: readonly NamedBundle[]): string {
  const parts = bundles.map(({ name, bundle }) => [name, bundle.digest]);
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function toEvaluation(outcome: WasmOutcome, bundles: BundleRevisions): Evaluation {
  return outcome.kind === 'result'
    ? readResultSet(outcome.text, bundles)
    : failure(`engine_${outcome.kind}`, outcome.message, bundles);
}

/** `[]` when no rule produced a value, else one binding: `[{"result": …}]`. */
function readResultSet(text: string, bundles: BundleRevisions): Evaluation {
  const set = parseJson(text);
  if (!Array.isArray(set)) return failure('engine_error', 'policy gave no result set', bundles);
  const [first] = set as readonly unknown[];
  if (first === undefined) return Object.freeze({ kind: 'undefined', bundles });
  if (typeof first !== 'object' || first === null || !('result' in first)) {
    return failure('engine_error', 'policy gave a malformed result set', bundles);
  }
  return Object.freeze({ kind: 'result', value: first.result, bundles });
}
