import { messageOf } from '../runtime/errors.ts';
import { createLatest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';
import { defaultSvid, type SnapshotReader } from '../trust/snapshot.ts';
import { type JwtSvidsByAudience, noJwtSvids } from './resources.ts';

/** The JWT-SVIDs of the default identity for the audiences that SDS serves. */
export interface ServedJwtSvids {
  current(): JwtSvidsByAudience;
  /** Conflating, like a snapshot's. */
  changes(signal: AbortSignal): AsyncIterable<JwtSvidsByAudience>;
}

/**
 * Follows the default SVID and keeps a JWT-SVID of its identity at hand for each audience, renewed as the cache renews
 * it, while `run` runs. One that the cache drops is no longer served, and at once those of the default SVID before when
 * there is another, or none.
 */
export function createServedJwtSvids(options: {
  audiences: readonly string[];
  snapshots: SnapshotReader;
  cache: JwtSvidCache;
  /** As for the default SVID itself. */
  defaultSvidHint: string | undefined;
  log: Logger;
}): ServedJwtSvids & Readonly<{ run(signal: AbortSignal): Promise<void> }> {
  const { audiences, snapshots, cache, defaultSvidHint, log } = options;
  const held = createLatest(noJwtSvids);

  async function follow(audience: string, spiffeId: SpiffeId, signal: AbortSignal): Promise<void> {
    try {
      for await (const svid of cache.watch({ audience, spiffeId }, signal)) {
        const others = [...held.current()].filter(([name]) => name !== audience);
        held.set(new Map(svid === undefined ? others : [...others, [audience, svid]]));
      }
    } catch (error) {
      log.error({ audience, spiffeId, error: messageOf(error) }, 'JWT-SVID for SDS cannot be followed');
    }
  }

  async function run(signal: AbortSignal): Promise<void> {
    if (audiences.length === 0) return;
    let identity: SpiffeId | undefined;
    let following = new AbortController();
    try {
      for await (const snapshot of snapshots.changes(signal)) {
        const spiffeId = defaultSvid(snapshot, defaultSvidHint)?.spiffeId;
        if (spiffeId === identity) continue;
        identity = spiffeId;
        following.abort();
        following = new AbortController();
        held.set(noJwtSvids);
        if (spiffeId === undefined) continue;
        for (const audience of audiences) void follow(audience, spiffeId, following.signal);
      }
    } finally {
      following.abort();
    }
  }

  return Object.freeze({
    current: () => held.current(),
    changes: (signal: AbortSignal) => held.changes(signal),
    run,
  });
}
