import type { Evaluation, PolicyEngine } from '../../policy/policy-engine.ts';
import { withDeadline } from '../../runtime/abort.ts';
import { MalformedError, messageOf } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/log.ts';
import { type DecisionEvent, withoutDocuments } from './decision-log.ts';
import { applyMask, parseMask } from './log-mask.ts';

export interface LogPolicyMeter {
  /** A record was written without its documents, because the policy could not say what of them is secret. */
  decisionWithheld(): void;
}

export type LogPolicyOptions = Readonly<{
  engine: PolicyEngine;
  /** Whether the engine has a decision path; absent when only asking tells. */
  has?: ((path: string) => boolean) | undefined;
  /** Bound on the policy's word about one record. */
  timeoutMs: number;
  monotonicNow: () => number;
  log: Logger;
  meter: LogPolicyMeter;
}>;

export interface LogPolicy {
  /**
   * The record as the policy wants it; undefined when the policy drops it. Never rejects: when the policy cannot be asked
   * or gives nonsense, the record goes without the documents that it might have masked.
   */
  apply(event: DecisionEvent, signal: AbortSignal): Promise<DecisionEvent | undefined>;
}

const packagePath = 'system/log';
/** How long an engine that had no such package is not asked again. */
const absentMs = 1_000;

type Wishes = Readonly<{ drop?: unknown; mask?: unknown }>;

/**
 * OPA's `system.log.drop` and `system.log.mask`, with the record as input. OPA loses a record when they fail, and with it
 * the decision; here the record stays, and what could be secret goes.
 */
export function createLogPolicy(options: LogPolicyOptions): LogPolicy {
  const { engine, has, timeoutMs, monotonicNow, log, meter } = options;
  /** What the engine last said: until when it has no such package. */
  let absentUntil: number | undefined;
  let failing = false;

  async function ask(path: string, event: DecisionEvent, signal: AbortSignal): Promise<Evaluation> {
    const evaluation = await withDeadline(timeoutMs, signal, (bounded) =>
      engine.evaluate(path, event, bounded),
    );
    if (evaluation.kind === 'failure') throw new MalformedError(evaluation.message);
    return evaluation;
  }

  async function askEach(
    known: (path: string) => boolean,
    event: DecisionEvent,
    signal: AbortSignal,
  ): Promise<Wishes> {
    const wishes: { drop?: unknown; mask?: unknown } = {};
    for (const rule of ['drop', 'mask'] as const) {
      const path = `${packagePath}/${rule}`;
      if (!known(path)) continue;
      const evaluation = await ask(path, event, signal);
      if (evaluation.kind === 'result') wishes[rule] = evaluation.value;
    }
    return wishes;
  }

  /** One question for both rules. Without such a package most records cost none. */
  async function askPackage(event: DecisionEvent, signal: AbortSignal): Promise<Wishes> {
    if (absentUntil !== undefined && monotonicNow() < absentUntil) return {};
    let evaluation: Evaluation;
    try {
      evaluation = await ask(packagePath, event, signal);
    } catch (error) {
      // An engine that had no rule about the log when it was last heard has none that is broken.
      if (absentUntil !== undefined) return {};
      throw error;
    }
    if (evaluation.kind !== 'result') {
      absentUntil = monotonicNow() + absentMs;
      return {};
    }
    absentUntil = undefined;
    if (typeof evaluation.value !== 'object' || evaluation.value === null) {
      throw new MalformedError('system.log is not a package');
    }
    return evaluation.value;
  }

  function note(problem: string | undefined): void {
    if ((problem !== undefined) === failing) return;
    failing = problem !== undefined;
    if (failing) {
      log.warn({ error: problem }, 'system.log cannot be evaluated: records go without input and result');
    } else log.info({}, 'system.log is evaluated again');
  }

  return {
    async apply(event, signal) {
      try {
        const { drop, mask } = await (has === undefined
          ? askPackage(event, signal)
          : askEach(has, event, signal));
        if (drop !== undefined && typeof drop !== 'boolean') {
          throw new MalformedError('system.log.drop is not a boolean');
        }
        const kept = drop === true ? undefined : applyMask(event, parseMask(mask));
        note(undefined);
        return kept;
      } catch (error) {
        note(messageOf(error));
        meter.decisionWithheld();
        // The reason may be of the result's making.
        const { reason: _reason, ...rest } = withoutDocuments(event);
        return rest;
      }
    },
  };
}
