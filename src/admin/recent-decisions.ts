/** One decision as the status page shows it: who, what, and what came of it; never headers, bodies or query strings. */
export type RecentDecision = Readonly<{
  decisionId: string;
  /** Milliseconds since the epoch. */
  at: number;
  outcome: 'allow' | 'deny' | 'failure' | 'dry_run';
  reasonCode: string | undefined;
  /** SPIFFE ID. */
  peer: string | undefined;
  /** For people, such as `GET /orders`. */
  request: string | undefined;
}>;

export interface RecentDecisions {
  add(decision: RecentDecision): void;
  /** The newest first. */
  list(): readonly RecentDecision[];
}

const maxTextLength = 256;

/** Remembers the last `limit` decisions; older ones are forgotten, and long texts are cut. */
export function createRecentDecisions(limit = 20): RecentDecisions {
  let kept: readonly RecentDecision[] = [];
  return Object.freeze({
    add(decision: RecentDecision) {
      const request = decision.request?.split('?', 1)[0]?.slice(0, maxTextLength);
      kept = [Object.freeze({ ...decision, request }), ...kept.slice(0, limit - 1)];
    },
    list: () => kept,
  });
}
