import { createEventStream } from '../admin/event-stream.ts';
import type { Routes } from '../admin/http.ts';
import { createIdentityHistory, type IdentityChange } from '../admin/identity-history.ts';
import { createSpiffeRoutes } from '../admin/spiffe-api.ts';
import { type BundleInfo, bundleSummaryJson, identityJson } from '../admin/spiffe-json.ts';
import { formatTime } from '../admin/time.ts';
import type { Config } from '../config/config.ts';
import type { Sleep } from '../runtime/abort.ts';
import type { AppError } from '../runtime/errors.ts';
import type { Task } from '../runtime/tasks.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';
import { type SnapshotReader, usableDefaultSvid } from '../trust/snapshot.ts';

/** The admin server's part that tells of identity. */
export type SpiffeApi = Readonly<{
  routes: Routes;
  tasks: readonly Task[];
  /** To be told whenever the identity source's state changes: what is wrong with it, or undefined. */
  sourceProblem(problem: AppError | undefined): void;
}>;

/** What is counted of the snapshots. */
export interface IdentityMeter {
  /** The bundle of this trust domain, X.509 or JWT, came, changed or went. */
  bundleUpdated(trustDomain: TrustDomain): void;
}

const maxEventClients = 16;

export function createSpiffeApi(
  config: Config,
  deps: {
    snapshots: SnapshotReader;
    sourceName: BundleInfo['source'];
    bundleInfo: (trustDomain: TrustDomain) => BundleInfo | undefined;
    tokens: Pick<JwtSvidCache, 'get'>;
    now: () => number;
    sleep: Sleep;
    meter: IdentityMeter;
  },
): SpiffeApi {
  const { snapshots, sourceName, bundleInfo, tokens, now, sleep, meter } = deps;
  const events = createEventStream({ sleep, maxClients: maxEventClients });
  let problem: AppError | undefined;

  function publish(change: IdentityChange): void {
    if (change.kind === 'svids') {
      const svids = change.svids.map((svid) => identityJson(svid, history.rotatedAt(svid)));
      events.publish({ name: 'svid_update', data: { time: formatTime(now()), svids } });
    } else {
      const { trustDomain, snapshot } = change;
      meter.bundleUpdated(trustDomain);
      const data = { time: formatTime(now()), ...bundleSummaryJson(snapshot, trustDomain) };
      events.publish({ name: 'bundle_update', data });
    }
  }
  const history = createIdentityHistory({ snapshots, now, onChange: publish });

  return {
    routes: createSpiffeRoutes({
      snapshots,
      usableSvid: (snapshot) => usableDefaultSvid(snapshot, config.sds.defaultSvidHint, now()),
      source: () => ({ name: sourceName, problem: problem?.message }),
      bundleInfo,
      history,
      events,
      tokens: config.admin.allowJwtSvid ? tokens : undefined,
      now,
    }),
    tasks: [(signal) => history.run(signal)],
    sourceProblem(next) {
      const repeated = next?.code === problem?.code && next?.message === problem?.message;
      problem = next;
      if (next === undefined || repeated) return;
      const { code, message } = next;
      events.publish({
        name: 'source_error',
        data: { time: formatTime(now()), source: sourceName, code, message },
      });
    },
  };
}
