/** Bounds of an exponential backoff, in milliseconds. */
export type BackoffPolicy = Readonly<{ minMs: number; maxMs: number }>;

/**
 * The wait before retry number `attempt` (0 for the first): full jitter over a doubling ceiling, never below a fifth of
 * `minMs`, so that a herd of clients spreads out and none of them spins. `random` gives a number in [0, 1).
 */
export function nextDelayMs(policy: BackoffPolicy, attempt: number, random: () => number): number {
  const ceiling = Math.min(policy.maxMs, policy.minMs * 2 ** Math.min(attempt, 30));
  const floor = policy.minMs / 5;
  return Math.round(floor + random() * (ceiling - floor));
}
