import type { Config } from '../config/config.ts';
import { createHttpClient } from '../http/client.ts';
import type { ServerTrust } from '../http/server-trust.ts';
import { createOpaRestEngine, type OpaRestEngine } from '../policy/opa-rest.ts';
import type { Logger } from '../runtime/log.ts';
import { type SnapshotReader, usableDefaultSvid } from '../trust/snapshot.ts';
import { currentCredentials } from '../trust/svid-credentials.ts';

/** The OPA server as configured; one with `policy.opa.spiffe_ids` is shown our default X509-SVID. */
export function createConfiguredOpa(
  config: Config,
  deps: { snapshots: Pick<SnapshotReader, 'current'>; now: () => number; log: Logger },
): OpaRestEngine {
  const { policy, extAuthz } = config;
  const http = createHttpClient({
    maxSockets: extAuthz.limits.maxConcurrent,
    trust: policy.opa.spiffeIds.length === 0 ? undefined : trustOf(config, deps),
  });
  return createOpaRestEngine({ url: policy.opa.url, http, timeoutMs: policy.timeoutMs, log: deps.log });
}

function trustOf(
  { policy, sds }: Config,
  { snapshots, now }: { snapshots: Pick<SnapshotReader, 'current'>; now: () => number },
): ServerTrust {
  return {
    kind: 'spiffe',
    spiffeIds: policy.opa.spiffeIds,
    bundles: () => snapshots.current().bundles,
    credentials: currentCredentials(snapshots, (snapshot) =>
      usableDefaultSvid(snapshot, sds.defaultSvidHint, now()),
    ),
    now,
  };
}
