import { withDeadline } from '../../runtime/abort.ts';
import { type CheckTrace, traceOf } from '../check-trace.ts';
import { problemOf, reasonCodeOf, reasonOf } from '../outcome.ts';
import type { Redactor } from './redaction.ts';
import { roughSize } from './rough-size.ts';

/** One record in the form of OPA's decision log events (EventV1), with the outcome beside. */
export type DecisionEvent = Readonly<Record<string, unknown>>;

export type DecisionLogOptions = Readonly<{
  /** Takes the finished records, e.g. to write them to the console. Must not throw. */
  sink: (event: DecisionEvent) => void;
  /** Asked after each batch: fulfilled when the sink, which has more than enough now, takes records again. */
  backlog?: (() => Promise<void> | undefined) | undefined;
  redact: Redactor;
  /** What a policy makes of a finished record; undefined drops it. Must not reject. */
  policy?: ((event: DecisionEvent, signal: AbortSignal) => Promise<DecisionEvent | undefined>) | undefined;
  /** Names of this sidecar that every record carries, e.g. `{ id, version }`. */
  labels: Readonly<Record<string, string>>;
  /** Records that wait beyond these are dropped: how many, and roughly how many bytes of requests and results they hold. */
  maxQueued?: number | undefined;
  maxQueuedBytes?: number | undefined;
  /** The share of plain allows that is recorded, 0 to 1; everything else always is. All, unless told. */
  sample?: number | undefined;
  /** A number in [0, 1). */
  random: () => number;
  meter: DecisionLogMeter;
}>;

export interface DecisionLogMeter {
  /** A Check has no record: the queue was full, or it was an allow that the sample left out, or policy drops it. */
  decisionDropped(reason: 'queue_full' | 'sampled' | 'policy'): void;
}

export interface DecisionLog {
  /** Queues the record of a Check; costs the Check nothing more. */
  record(trace: CheckTrace): void;
  /** Writes queued records until `signal` fires, then the rest. */
  run(signal: AbortSignal): Promise<void>;
}

const batchSize = 64;
/** A batch ends with the record that brings it to so much: writing one takes the loop as long as judging its Check did. */
const batchBytes = 256 * 1024;
/** How many records a policy is asked about at a time. */
const concurrency = 8;
/** How long policy has for the last records. */
const drainMs = 2_000;
const never = new AbortController().signal;
const overheadBytes = 4 * 1024;
/** Of a larger result more need not be known: eight of them fill the queue. */
const maxResultBytes = 4 * 1024 * 1024;

/** The decision log, off the path of requests: what cannot be written in time is dropped and counted. */
export function createDecisionLog(options: DecisionLogOptions): DecisionLog {
  const { sink, meter, random, sample = 1, maxQueued = 2_048, maxQueuedBytes = 32 * 1024 * 1024 } = options;
  let queue: CheckTrace[] = [];
  let queuedBytes = 0;
  let held = false;
  let wake: (() => void) | undefined;

  function take(): CheckTrace[] {
    let bytes = 0;
    let count = 0;
    for (const trace of queue) {
      if (count >= batchSize || bytes >= batchBytes) break;
      bytes += weightOf(trace);
      count += 1;
    }
    const batch = queue.slice(0, count);
    queue = queue.slice(count);
    queuedBytes -= bytes;
    return batch;
  }

  async function write(batch: readonly CheckTrace[], signal: AbortSignal): Promise<void> {
    for (let start = 0; start < batch.length; start += concurrency) {
      const traces = batch.slice(start, start + concurrency);
      const events = traces.map((trace) => safeEvent(trace));
      const { policy } = options;
      const wanted =
        policy === undefined ? events : await Promise.all(events.map((event) => policy(event, signal)));
      for (const event of wanted) {
        if (event === undefined) meter.decisionDropped('policy');
        else emit(event);
      }
    }
  }

  // A result nested too deep for a recursive walk, here or in JSON.stringify. A client can bring a policy to give one, so
  // it must neither end the program nor leave the Check unrecorded.
  function safeEvent(trace: CheckTrace): DecisionEvent {
    try {
      return decisionEvent(trace, options);
    } catch {
      return withoutDocuments(decisionEvent({ ...trace, input: undefined, evaluation: undefined }, options));
    }
  }

  function emit(event: DecisionEvent): void {
    try {
      sink(event);
    } catch {
      sink(withoutDocuments(event));
    }
  }

  /** A sink that stands still fills the queue, which is bounded, and not memory. */
  async function holdBack(): Promise<void> {
    const backlog = options.backlog?.();
    if (backlog === undefined) return;
    held = true;
    await backlog;
    held = false;
    wake?.();
  }

  return {
    record(trace) {
      if (trace.outcome.kind === 'allowed' && sample < 1 && random() >= sample) {
        meter.decisionDropped('sampled');
        return;
      }
      const weight = weightOf(trace);
      if (queue.length >= maxQueued || queuedBytes + weight > maxQueuedBytes) {
        meter.decisionDropped('queue_full');
        return;
      }
      queue.push(trace);
      queuedBytes += weight;
      wake?.();
    },
    async run(signal) {
      signal.addEventListener('abort', () => wake?.(), { once: true });
      while (!signal.aborted) {
        if (queue.length === 0 || held) {
          await new Promise<void>((resolve) => (wake = resolve));
          wake = undefined;
          continue;
        }
        // A turn of the loop between batches: Checks that came meanwhile go first.
        await new Promise((resolve) => setImmediate(resolve));
        await write(take(), never);
        void holdBack();
      }
      let writing = Promise.resolve();
      const drain = async (bounded: AbortSignal): Promise<void> => {
        while (queue.length > 0) await write(take(), bounded);
      };
      await withDeadline(drainMs, never, (bounded) => (writing = drain(bounded))).catch(() => {});
      // A policy that is out of time says nothing more, so this is at once.
      await writing;
    },
  };
}

/** The record of the same decision without the documents that were decided on. */
export function withoutDocuments(event: DecisionEvent): DecisionEvent {
  const { input: _input, result: _result, ...rest } = event;
  return { ...rest, erased: ['/input', '/result'] };
}

/** The record of one Check, without credentials and without what the mask names. */
export function decisionEvent(
  trace: CheckTrace,
  options: Pick<DecisionLogOptions, 'redact' | 'labels'>,
): DecisionEvent {
  const { evaluation, outcome, query } = trace;
  const bundles = evaluation?.bundles;
  const engineDecisionId = evaluation?.kind === 'failure' ? undefined : evaluation?.engineDecisionId;
  const { input, result, erased } = options.redact({
    input: trace.input ?? whatWasAsked(trace),
    result: evaluation?.kind === 'result' ? evaluation.value : undefined,
  });
  const problem = problemOf(outcome);
  const reasonCode = reasonCodeOf(outcome);
  const context = traceOf(trace);
  return {
    labels: options.labels,
    decision_id: trace.decisionId,
    ...(context === undefined ? {} : { trace_id: context.traceId, span_id: context.spanId }),
    ...(bundles === undefined ? {} : { bundles }),
    ...(query === undefined ? {} : { path: query.path }),
    ...(input === undefined ? {} : { input }),
    ...(result === undefined ? {} : { result }),
    ...(erased.length === 0 ? {} : { erased }),
    // OPA's place for what others add.
    ...(engineDecisionId === undefined ? {} : { custom: { engine_decision_id: engineDecisionId } }),
    ...(problem === undefined ? {} : { error: { code: reasonCode, message: problem } }),
    outcome: outcome.kind,
    ...(trace.peer?.id === undefined ? {} : { peer: trace.peer.id }),
    ...(reasonCode === undefined ? {} : { reason_code: reasonCode }),
    ...(reasonOf(outcome) === undefined ? {} : { reason: reasonOf(outcome) }),
    timestamp: new Date(trace.startedAt).toISOString(),
    metrics: {
      timer_server_handler_ns: Math.round(trace.durationMs * 1e6),
      ...(trace.engineMs === undefined ? {} : { timer_rego_query_eval_ns: Math.round(trace.engineMs * 1e6) }),
    },
  };
}

/** Of a request that no policy was shown, what was asked; in the place where masks look for it. */
function whatWasAsked({ request }: CheckTrace): unknown {
  const http = request?.attributes?.request?.http;
  if (http === undefined) return undefined;
  const { method, host, path } = http;
  // Nobody has masked a query string for these, and it may hold a credential.
  return { attributes: { request: { http: { method, host, path: path?.replace(/[?#][^]*$/, '') } } } };
}

function weightOf({ request, evaluation }: CheckTrace): number {
  if (request === undefined) return overheadBytes;
  const result = evaluation?.kind === 'result' ? evaluation.value : undefined;
  const { headers, attributes } = request;
  const http = attributes?.request?.http;
  // Body text, its parsed form and base64 come on top of one another.
  const bodyBytes = 3 * ((http?.body?.length ?? 0) + (http?.rawBody?.length ?? 0));
  let weight = overheadBytes + bodyBytes + roughSize(result, maxResultBytes);
  for (const name in headers) weight += headers[name]?.length ?? 0;
  return weight;
}
