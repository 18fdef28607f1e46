import type { JsonObject } from '../policy/decision.ts';
import type { Evaluation } from '../policy/policy-engine.ts';
import type { SelectedQuery } from '../policy/query-map.ts';
import type { CheckRequest } from './check-attributes.ts';
import type { Outcome } from './outcome.ts';
import type { Peer } from './peer/peer.ts';
import { type TraceContext, traceContextOf } from './trace-context.ts';

/** When a step began and ended, in milliseconds since the Check began; `toMs` is undefined for one that was given up. */
export type Interval = Readonly<{
  step: 'peer' | 'engine' | 'credentials';
  fromMs: number;
  toMs: number | undefined;
}>;

/** The steps of a Check in order; each is undefined when the Check ended before it. */
export type CheckSteps = Readonly<{
  request: CheckRequest | undefined;
  peer: Peer | undefined;
  query: SelectedQuery | undefined;
  input: JsonObject | undefined;
  evaluation: Evaluation | undefined;
  /** Milliseconds that the engine took. */
  engineMs: number | undefined;
  /** The steps that may wait for others: for keys of an issuer, for the engine, for tokens. */
  intervals: readonly Interval[];
}>;

/** One Check from its request to its outcome, for the response, the decision log, metrics and `explain`. */
export type CheckTrace = CheckSteps &
  Readonly<{
    /** Ours, new for every Check. */
    decisionId: string;
    /** Milliseconds since the epoch. */
    startedAt: number;
    durationMs: number;
    outcome: Outcome;
    /** The span of Envoy's that the Check came from, when the metadata of the call names one. */
    callTrace?: TraceContext | undefined;
  }>;

export const noSteps: CheckSteps = Object.freeze({
  request: undefined,
  peer: undefined,
  query: undefined,
  input: undefined,
  evaluation: undefined,
  engineMs: undefined,
  intervals: Object.freeze([]),
});

/** The trace that a Check is part of: Envoy's word counts before the request's headers, which a client may have written. */
export function traceOf({ callTrace, request }: CheckTrace): TraceContext | undefined {
  return callTrace ?? (request && traceContextOf(request.headers));
}
