/** Why an engine gave no decision; the closed reason codes of the product's rules. */
export type EngineFailure = 'engine_unavailable' | 'engine_timeout' | 'engine_error';

/** The revision of each bundle that an evaluation went by, as decision logs of OPA have it. */
export type BundleRevisions = Readonly<Record<string, Readonly<{ revision: string }>>>;

/**
 * What an evaluation came to. `undefined` (no rule produced a value) is a decision's business, a failure is not: the
 * two must never be mixed up, because one is a deny and the other goes by `on_failure`.
 */
export type Evaluation =
  | (Readonly<{ kind: 'result'; value: unknown }> & Origin)
  | (Readonly<{ kind: 'undefined' }> & Origin)
  | Readonly<{
      kind: 'failure';
      reason: EngineFailure;
      message: string;
      bundles?: BundleRevisions | undefined;
    }>;

/** The evaluation that gave no decision; `bundles` are those it would have gone by. */
export function failure(reason: EngineFailure, message: string, bundles?: BundleRevisions): Evaluation {
  return Object.freeze({ kind: 'failure', reason, message, ...(bundles === undefined ? {} : { bundles }) });
}

/** What a decision rests on, as far as the engine tells. */
export type Origin = Readonly<{
  bundles?: BundleRevisions | undefined;
  /** What the engine itself calls the decision. */
  engineDecisionId?: string | undefined;
}>;

/** A policy engine. `path` is an OPA decision path such as `envoy/authz/allow`. */
export interface PolicyEngine {
  readonly name: 'opa' | 'wasm';
  /** Never rejects: every failure is a value. Ends early, as `engine_timeout`, when `signal` fires. */
  evaluate(path: string, input: unknown, signal: AbortSignal): Promise<Evaluation>;
  /** False until decisions can be made: for wasm, before the first activated policy. */
  ready(): boolean;
  /** Changes whenever decisions may change (part of every cache key); empty when the engine cannot tell. */
  revision(): string;
}
