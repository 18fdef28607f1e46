import type { Config } from '../config/config.ts';
import { type Checker, createChecker } from '../extauthz/checker.ts';
import { createDecisionCache, type DecisionCacheMeter } from '../extauthz/decision-cache.ts';
import type { IdentityRules } from '../extauthz/identity-rules.ts';
import type { IssuerKeysMeter } from '../extauthz/peer/issuer-keys.ts';
import { createRateLimit } from '../extauthz/rate-limit.ts';
import type { PolicyEngine } from '../policy/policy-engine.ts';
import { compileQueries, type QueryMap } from '../policy/query-map.ts';
import type { Logger } from '../runtime/log.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import type { Clock } from './clock.ts';
import { createConfiguredCredentials, createPeerSources, type MintToken } from './jwt-authorization.ts';
import { readProtoTypes } from './proto-types.ts';

/** The queries of `ext_authz`; throws ConfigError with every problem in them. */
export function compileConfiguredQueries({ extAuthz }: Config): QueryMap {
  return compileQueries(extAuthz.queries, { defaultPath: extAuthz.path, defaultInput: extAuthz.input });
}

/** Flow 2 as configured, over any engine and any snapshots; `run` and `explain` judge with the same one. */
export function createConfiguredChecker(
  config: Config,
  deps: {
    snapshots: SnapshotReader;
    engine: PolicyEngine;
    clock: Clock;
    identityRules: () => IdentityRules;
    mint: MintToken;
    meter: IssuerKeysMeter & Readonly<{ cache: DecisionCacheMeter }>;
    newDecisionId: () => string;
    log: Logger;
  },
): Checker {
  const { extAuthz, policy } = config;
  const { queries } = extAuthz;
  const { clock, mint, meter, ...rest } = deps;
  const { now } = clock;
  const dryRunQueries = new Set(queries.flatMap(({ dryRun }, index) => (dryRun ? [index] : [])));
  return createChecker({
    ...rest,
    queries: compileConfiguredQueries(config),
    peerSources: createPeerSources(config, { now, log: rest.log, meter }),
    trustXfcc: extAuthz.peer.trustXfcc,
    credentials: createConfiguredCredentials(config, mint),
    body: {
      parse: extAuthz.body.parse,
      maxBytes: extAuthz.body.maxBytes,
      protoTypes: readProtoTypes(config),
    },
    cache: extAuthz.cache && createDecisionCache({ ...extAuthz.cache, now, meter: meter.cache }),
    rateLimit:
      extAuthz.rateLimit && createRateLimit({ ...extAuthz.rateLimit, monotonicNow: clock.monotonicNow }),
    timeoutMs: policy.timeoutMs,
    dryRun: extAuthz.dryRun,
    dryRunQueries,
    now,
    monotonicNow: clock.monotonicNow,
  });
}
