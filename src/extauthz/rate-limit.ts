import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { createLruCache } from './lru.ts';

/** Bounds how many Checks of one SPIFFE ID are judged. */
export interface RateLimit {
  /** Takes one Check off what the ID has left: undefined, or after how many whole seconds there is one again. */
  take(id: SpiffeId): number | undefined;
}

export type RateLimitOptions = Readonly<{
  /** More than 0. */
  requestsPerSecond: number;
  /** How many may come at once; 0 is as many as come in a second, and at least one. */
  burst: number;
  /** How many IDs are remembered; one that is forgotten has its whole burst again. */
  maxIds?: number | undefined;
  /** Milliseconds of a clock that never goes back. */
  monotonicNow: () => number;
}>;

type Bucket = { tokens: number; at: number };

/** A token bucket for each SPIFFE ID; of more than `maxIds` the ones that were seen least recently are forgotten. */
export function createRateLimit(options: RateLimitOptions): RateLimit {
  const { requestsPerSecond, monotonicNow } = options;
  const burst = options.burst > 0 ? options.burst : Math.max(1, requestsPerSecond);
  const buckets = createLruCache<SpiffeId, Bucket>(options.maxIds ?? 10_000);
  return Object.freeze({
    take(id: SpiffeId) {
      const at = monotonicNow();
      let bucket = buckets.get(id);
      if (bucket === undefined) {
        bucket = { tokens: burst, at };
        buckets.set(id, bucket);
      }
      bucket.tokens = Math.min(burst, bucket.tokens + ((at - bucket.at) / 1000) * requestsPerSecond);
      bucket.at = at;
      if (bucket.tokens < 1) return Math.ceil((1 - bucket.tokens) / requestsPerSecond);
      bucket.tokens -= 1;
      return undefined;
    },
  });
}
