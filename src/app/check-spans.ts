import { type CheckTrace, type Interval, traceOf } from '../extauthz/check-trace.ts';
import { reasonCodeOf } from '../extauthz/outcome.ts';
import { resultOf } from '../extauthz/service.ts';
import type { ChildSpan, ServerSpan } from '../telemetry/tracing.ts';

const service = 'envoy.service.auth.v3.Authorization';

/**
 * Tells of Checks as spans: of each that the caller's trace has sampled, of none that it has not, and of a share of those
 * without a word from it. Nothing of a request is told but who its peer is.
 */
export function createCheckSpans(options: {
  /** From 0 to 1. */
  sample: number;
  /** A number in [0, 1). */
  random: () => number;
  engine: string;
  record: (span: ServerSpan) => void;
}): (trace: CheckTrace) => void {
  const { sample, random, engine, record } = options;
  return (trace) => {
    const parent = traceOf(trace);
    if (!(parent?.sampled ?? random() < sample)) return;
    const { outcome, decisionId, durationMs, peer, query } = trace;
    const reasonCode = reasonCodeOf(outcome);
    record({
      name: `${service}/Check`,
      startedAt: trace.startedAt,
      durationMs,
      parent,
      failed: resultOf(outcome) === 'failure',
      children: trace.intervals.map((interval) => childOf(interval, durationMs)),
      attributes: {
        'rpc.system': 'grpc',
        'rpc.service': service,
        'rpc.method': 'Check',
        'svidecar.decision_id': decisionId,
        'svidecar.result': resultOf(outcome),
        'svidecar.engine': engine,
        ...(reasonCode === undefined ? {} : { 'svidecar.reason_code': reasonCode }),
        ...(query === undefined ? {} : { 'svidecar.query': query.path }),
        ...(peer?.id === undefined ? {} : { 'svidecar.peer': peer.id }),
      },
    });
  };
}

/** A step that was given up lasts until the answer. */
function childOf({ step, fromMs, toMs }: Interval, durationMs: number): ChildSpan {
  return { name: step, afterMs: fromMs, durationMs: Math.max(0, (toMs ?? durationMs) - fromMs) };
}
