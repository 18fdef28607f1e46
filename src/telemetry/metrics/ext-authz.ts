import type { Instruments } from '../instruments.ts';

/** A Check takes parts of a millisecond with wasm, and up to policy.timeout when the engine is slow. */
const latencyBuckets = [
  0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5,
];

export function extAuthzMetrics({ counter, histogram }: Instruments) {
  const checks = counter('checks_total', 'Checks answered, by outcome and reason code.', [
    'outcome',
    'reason',
  ]);
  const checkSeconds = histogram(
    'check_seconds',
    'Time from a Check to its answer, policy included.',
    latencyBuckets,
    ['outcome'],
  );
  const engineSeconds = histogram(
    'engine_seconds',
    'Time the policy engine took for one query.',
    latencyBuckets,
  );
  const issuerKeys = counter(
    'bridge_key_fetches_total',
    'Fetches of the keys of the issuers that bridges trust.',
    ['outcome'],
  );
  const shadows = counter('shadow_decisions_total', 'Shadow decisions beside those of queries.', ['outcome']);
  const cache = counter('decision_cache_total', 'Decisions looked up in the cache.', ['outcome']);
  return Object.freeze({
    cache: Object.freeze({ looked: (outcome: string): void => cache.inc({ outcome }) }),
    shadowed: (outcome: string): void => shadows.inc({ outcome }),
    keysFetched: (outcome: string): void => issuerKeys.inc({ outcome }),
    checked(outcome: string, reason: string, seconds: number): void {
      checks.inc({ outcome, reason });
      checkSeconds.observe({ outcome }, seconds);
    },
    evaluated: (seconds: number): void => engineSeconds.observe(seconds),
  });
}
