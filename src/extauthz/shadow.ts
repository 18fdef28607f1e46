import type { PolicyEngine } from '../policy/policy-engine.ts';
import type { MatchSpec } from '../policy/request-match.ts';
import type { RequestRules } from '../policy/request-rules.ts';
import type { Logger } from '../runtime/log.ts';
import type { CheckTrace } from './check-trace.ts';
import { type Outcome, outcomeOf, reasonOf } from './outcome.ts';
import { queryRequestOf } from './query-request.ts';

/** One entry of `ext_authz.shadow`. */
export type ShadowRule = Readonly<{ match: MatchSpec; path: string }>;

/** Whether a shadow decision was that of the query; `dropped` is one for which there was no room. */
export type ShadowOutcome = 'same' | 'different' | 'failure' | 'dropped';

export interface ShadowMeter {
  shadowed(outcome: ShadowOutcome): void;
}

export type ShadowOptions = Readonly<{
  rules: RequestRules<ShadowRule>;
  engine: PolicyEngine;
  /** Bounds one evaluation, in milliseconds. */
  timeoutMs: number;
  /** Evaluations under way at once; what comes meanwhile is dropped, so that Checks never wait for a shadow. */
  maxConcurrent: number;
  log: Logger;
  meter: ShadowMeter;
}>;

/** Asks other policies about Checks that have been answered; what they say is logged and counted, and decides nothing. */
export interface Shadow {
  /** Starts what fits the Check, and does not wait; resolves when it is done. Never rejects. */
  observe(trace: CheckTrace): Promise<void>;
}

export function createShadow(options: ShadowOptions): Shadow {
  const { rules, engine, timeoutMs, maxConcurrent, log, meter } = options;
  let underWay = 0;

  async function ask({ path }: ShadowRule, trace: CheckTrace): Promise<void> {
    const { decisionId, input, peer } = trace;
    if (underWay >= maxConcurrent) return meter.shadowed('dropped');
    underWay += 1;
    const evaluation = await engine.evaluate(path, input, AbortSignal.timeout(timeoutMs));
    underWay -= 1;
    const shadow = outcomeOf(evaluation);
    const outcome = trace.evaluation === undefined ? trace.outcome : outcomeOf(trace.evaluation);
    const told =
      shadow.kind === 'failed' ? 'failure' : isAllow(shadow) === isAllow(outcome) ? 'same' : 'different';
    meter.shadowed(told);
    const fields = {
      decisionId,
      path,
      peer: peer?.id,
      decided: isAllow(outcome) ? 'allow' : 'deny',
      shadow: shadow.kind === 'failed' ? 'failure' : isAllow(shadow) ? 'allow' : 'deny',
      reason: shadow.kind === 'failed' ? shadow.message : reasonOf(shadow),
    };
    // Those that agree are as many as there are Checks.
    if (told === 'same') log.debug(fields, 'shadow decision');
    else log.info(fields, 'shadow decision');
  }

  return Object.freeze({
    async observe(trace: CheckTrace) {
      // Without an input the Check was over before any policy.
      if (trace.request === undefined || trace.input === undefined) return;
      const fitting = rules.fitting(queryRequestOf(trace.request, trace.peer?.id));
      if (fitting === 'unsafe_path') return;
      await Promise.all(fitting.map((rule) => ask(rule, trace)));
    },
  });
}

function isAllow(outcome: Outcome): boolean {
  return outcome.kind === 'allowed';
}
