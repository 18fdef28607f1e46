import type { Config } from '../config/config.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import { createServedJwtSvids, type ServedJwtSvids } from '../sds/jwt-svids.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { createJwtSvidCache, type JwtSvidCache, type JwtSvidMeter } from '../tokens/jwt-svid-cache.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import type { IdentitySource } from '../workload/identity-source.ts';
import type { Clock } from './clock.ts';

/** The JWT-SVIDs of this workload. */
export type Tokens = Readonly<{
  cache: JwtSvidCache;
  /** Those that SDS serves. */
  served: ServedJwtSvids;
  tasks: readonly Task[];
}>;

/** Identities times audiences in use at once; a JWT-SVID takes a kilobyte or two. */
const maxEntries = 10_000;

export function createTokens(
  config: Config,
  deps: { source: IdentitySource; snapshots: SnapshotReader; clock: Clock; log: Logger; meter: JwtSvidMeter },
): Tokens {
  const { source, snapshots, clock, log, meter } = deps;
  const { now, sleep, random } = clock;
  const cache = createJwtSvidCache({
    fetch: (request, signal) => source.fetchJwtSvids(request, signal),
    now,
    sleep,
    random,
    log,
    meter,
    maxEntries,
    onPermissionDenied: config.identity.workloadApi.onPermissionDenied,
  });
  const { defaultSvidHint } = config.sds;
  const audiences = audiencesOf(config);
  const served = createServedJwtSvids({ audiences, snapshots, cache, defaultSvidHint, log });
  return Object.freeze({
    cache,
    served,
    tasks: [
      (signal) => cache.run(signal),
      (signal) => forgetDropped(snapshots, cache, signal),
      (signal) => served.run(signal),
    ],
  } satisfies Tokens);
}

/** What will be asked of the default identity by configuration: kept at hand, so that the first request finds it. */
function audiencesOf({ sds, extAuthz }: Config): readonly string[] {
  return [
    ...new Set([
      ...(sds.enabled ? sds.jwtAudiences : []),
      ...(extAuthz.enabled ? extAuthz.injectJwtSvid.map(({ audience }) => audience) : []),
    ]),
  ];
}

/** An identity that is taken away takes its JWT-SVIDs along; without any identity left, none may be used. */
async function forgetDropped(
  snapshots: SnapshotReader,
  cache: JwtSvidCache,
  signal: AbortSignal,
): Promise<void> {
  let held: ReadonlySet<SpiffeId> = new Set();
  for await (const { svids } of snapshots.changes(signal)) {
    const before = held;
    const now = new Set(svids.map(({ spiffeId }) => spiffeId));
    held = now;
    cache.forget((id) => now.size === 0 || (before.has(id) && !now.has(id)));
  }
}
