import { type AllowDecision, type DenyDecision, type NameValue, parseDecision } from '../policy/decision.ts';
import type { EngineFailure, Evaluation } from '../policy/policy-engine.ts';
import type { ReasonCode, Refusal } from './reason.ts';

/**
 * What a Check came to. A refusal is by our own rules, a denial by the policy's answer, a failure by an engine that
 * gave none. `lifted` is an allow that dry-run made of a denial or a failure.
 */
export type Outcome = Forwarded | Denied | Failed | Readonly<{ kind: 'refused'; refusal: Refusal }>;

/** The request goes on, with these headers of ours in place of any others of their names. They are secret. */
export type Forwarded = (
  | Readonly<{ kind: 'allowed'; decision: AllowDecision }>
  | Readonly<{ kind: 'lifted'; from: Denied | Failed }>
) &
  Readonly<{ credentials?: readonly NameValue[] | undefined }>;

export type Denied = Readonly<{ kind: 'denied'; decision: DenyDecision }>;
export type Failed = Readonly<{ kind: 'failed'; reasonCode: EngineFailure; message: string }>;

/** What the engine's word comes to; an undefined or unreadable decision is a denial, not a failure. Never throws. */
export function outcomeOf(evaluation: Evaluation): Outcome {
  if (evaluation.kind === 'failure') {
    return { kind: 'failed', reasonCode: evaluation.reason, message: evaluation.message };
  }
  const decision = parseDecision(evaluation.kind === 'result' ? evaluation.value : undefined);
  return decision.kind === 'allow' ? { kind: 'allowed', decision } : { kind: 'denied', decision };
}

/** Dry-run: what a policy or its engine refused passes; refusals by our own rules stay. */
export function lift(outcome: Outcome): Outcome {
  return outcome.kind === 'denied' || outcome.kind === 'failed' ? { kind: 'lifted', from: outcome } : outcome;
}

/** The code of an outcome that is no plain allow; of a lifted one, what was lifted. */
export function reasonCodeOf(outcome: Outcome): ReasonCode | undefined {
  if (outcome.kind === 'allowed') return undefined;
  if (outcome.kind === 'lifted') return reasonCodeOf(outcome.from);
  if (outcome.kind === 'denied') return outcome.decision.code;
  return outcome.kind === 'failed' ? outcome.reasonCode : outcome.refusal.reasonCode;
}

/** The policy's own words when it gave any, else the code; undefined for an allow without words. */
export function reasonOf(outcome: Outcome): string | undefined {
  if (outcome.kind === 'allowed' || outcome.kind === 'denied') return outcome.decision.reason;
  return outcome.kind === 'lifted' ? reasonOf(outcome.from) : reasonCodeOf(outcome);
}

/** What is wrong, for the operator; undefined when a policy simply said yes or no. Never for the client. */
export function problemOf(outcome: Outcome): string | undefined {
  if (outcome.kind === 'allowed') return undefined;
  if (outcome.kind === 'lifted') return problemOf(outcome.from);
  if (outcome.kind === 'denied') return outcome.decision.problem;
  return outcome.kind === 'failed' ? outcome.message : outcome.refusal.message;
}
