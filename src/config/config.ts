import type { SocketAddress } from '../runtime/socket-address.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import { type AdminConfig, buildAdmin } from './admin-section.ts';
import { buildDecisionLog, type DecisionLogConfig } from './decision-log-section.ts';
import { buildExtAuthz, type ExtAuthzConfig } from './ext-authz-section.ts';
import { buildFederation, type FederationConfig } from './federation-section.ts';
import { buildIdentity, type IdentityConfig } from './identity-section.ts';
import { buildOutput, type OutputConfig } from './output-section.ts';
import { buildPolicy, type PolicyConfig } from './policy-section.ts';
import { createFileResolver } from './resolve-file.ts';
import type { Options } from './schema.ts';
import { buildSds, type SdsConfig } from './sds-section.ts';
import { buildTracing, type TracingConfig } from './tracing-section.ts';

/** The whole configuration, checked, with every default in place and file names resolved. Deeply frozen. */
export type Config = Readonly<{
  identity: IdentityConfig;
  /** An assertion about our own SVIDs. */
  trustDomain: TrustDomain | undefined;
  listen: SocketAddress;
  /** Permission bits of unix sockets, e.g. 0o660. */
  listenMode: number;
  sds: SdsConfig;
  extAuthz: ExtAuthzConfig;
  policy: PolicyConfig;
  federation: FederationConfig;
  outputs: readonly OutputConfig[];
  admin: AdminConfig;
  decisionLog: DecisionLogConfig;
  /** Undefined: off. */
  tracing: TracingConfig | undefined;
  log: Readonly<{ level: 'debug' | 'info' | 'warn' | 'error' }>;
}>;

/** Turns checked options into the Config. `configPath` is the file that relative names count from. */
export function buildConfig(options: Options, configPath: string | undefined): Config {
  const resolve = createFileResolver(configPath);
  return deepFreeze({
    identity: buildIdentity(options.identity, resolve),
    trustDomain: options.trust_domain,
    listen: options.listen,
    listenMode: options.listen_mode,
    sds: buildSds(options.sds),
    extAuthz: buildExtAuthz(options.ext_authz, options.listen, resolve),
    policy: buildPolicy(options.policy, resolve),
    federation: buildFederation(options.federation, resolve),
    outputs: options.outputs.map((output) => buildOutput(output, resolve)),
    admin: buildAdmin(options.admin),
    decisionLog: buildDecisionLog(options.decision_log),
    tracing: buildTracing(options.tracing),
    log: { level: options.log.level },
  });
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const child of Object.values(value)) deepFreeze(child);
  }
  return value;
}
