import type { Config } from '../config/config.ts';
import { createHttpClient } from '../http/client.ts';
import { createOpaRestEngine, type OpaRestEngine } from '../policy/opa-rest.ts';
import type { Logger } from '../runtime/log.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import { createServerTrust } from './server-trust.ts';

/** The OPA server as configured; one with `policy.opa.spiffe_ids` is shown our default X509-SVID. */
export function createConfiguredOpa(
  config: Config,
  deps: { snapshots: Pick<SnapshotReader, 'current'>; now: () => number; log: Logger },
): OpaRestEngine {
  const { policy, extAuthz } = config;
  const http = createHttpClient({
    maxSockets: extAuthz.limits.maxConcurrent,
    trust: createServerTrust(config, policy.opa.spiffeIds, deps),
  });
  return createOpaRestEngine({ url: policy.opa.url, http, timeoutMs: policy.timeoutMs, log: deps.log });
}
