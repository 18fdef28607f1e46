import { dirname, isAbsolute, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { JsonValue } from '../runtime/json-value.ts';
import type { HostPort, SocketAddress } from '../runtime/socket-address.ts';
import type { IdTemplate } from '../spiffe/id-template.ts';
import type { IdPattern } from '../spiffe/match.ts';
import { parseSpiffeId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/spiffe-id.ts';
import { type BundleConfig, bundlesOf } from './bundle-config.ts';
import type { Options } from './schema.ts';

export type InputShape = 'envoy' | 'agentvault' | 'agentweave';

/** The embedded CA. */
export type DevIdentityConfig = Readonly<{
  trustDomain: TrustDomain;
  spiffeIds: readonly [SpiffeId, ...SpiffeId[]];
  svidTtlMs: number;
  jwtSvidTtlMs: number;
  serveWorkloadApi: SocketAddress | undefined;
}>;

/** An identity in files; paths as they are opened. */
export type FilesIdentityConfig = Readonly<{
  certificate: string;
  privateKey: string;
  bundle: string;
  federatedBundles: readonly Readonly<{ trustDomain: TrustDomain; file: string }>[];
}>;

export type IdentityConfig = Readonly<{
  source: 'workload_api' | 'files' | 'dev';
  workloadApi: Readonly<{
    /** As written; the workload room reads it by the rules of the standard. */
    address: string;
    onPermissionDenied: 'drop' | 'keep';
  }>;
  /** Set exactly when `source` is files. */
  files: FilesIdentityConfig | undefined;
  /** Set exactly when `source` is dev. */
  dev: DevIdentityConfig | undefined;
}>;

export type SdsConfig = Readonly<{
  enabled: boolean;
  defaultSvidName: string;
  defaultBundleName: string;
  defaultAllBundlesName: string;
  spiffeValidator: boolean;
  defaultSvidHint: string | undefined;
  jwtAudiences: readonly string[];
  unknownNames: 'wait' | 'reject';
}>;

/** A `match`, as the policy room compiles it. */
export type MatchConfig = Readonly<{
  peer?: string | undefined;
  method?: readonly string[] | undefined;
  path?: string | undefined;
  host?: string | undefined;
  context?: Readonly<Record<string, string>> | undefined;
}>;

/** One entry of `ext_authz.inject_jwt_svid`; the header in lower case. */
export type InjectionConfig = Readonly<{
  match: MatchConfig;
  audience: string;
  header: string;
  scheme: string;
}>;

/** One entry of `ext_authz.bridge`; the header in lower case. */
export type BridgeConfig = Readonly<{
  match: MatchConfig;
  jwksUrl: string;
  issuer: string;
  audience: string;
  header: string;
  spiffeId: IdTemplate;
  mintAudience: string;
}>;

/** One entry of `ext_authz.queries`, as the policy room compiles it. */
export type QueryConfig = Readonly<{
  match: MatchConfig;
  path: string | undefined;
  input: InputShape | undefined;
  dryRun: boolean;
  cacheKey: readonly string[] | undefined;
  set: Readonly<Record<string, JsonValue>> | undefined;
}>;

export type ExtAuthzConfig = Readonly<{
  enabled: boolean;
  /** Undefined: on the socket of `listen`, also when the file names that one. */
  listen: SocketAddress | undefined;
  /** Empty: a request that no query matches is denied. */
  path: string;
  input: InputShape;
  queries: readonly QueryConfig[];
  peer: Readonly<{
    require: boolean;
    verifyCertificate: 'required' | 'when_present' | 'off';
    trustXfcc: boolean;
    /** The header in lower case; without audiences no header is read. */
    jwtSvid: Readonly<{ header: string; audiences: readonly string[] }>;
    /** Undefined: every ID of the own trust domain. */
    allowedIdentities: readonly IdPattern[] | undefined;
    deniedIdentities: readonly IdPattern[];
    deniedIdentitiesFile: string | undefined;
  }>;
  dryRun: boolean;
  onFailure: 'deny' | 'error';
  headerMode: 'overwrite' | 'opa_envoy_plugin';
  injectJwtSvid: readonly InjectionConfig[];
  bridge: readonly BridgeConfig[];
  /** Set exactly when ext_authz has mTLS. */
  tls: Readonly<{ clientSpiffeIds: readonly SpiffeId[] }> | undefined;
  limits: Readonly<{ maxMessageBytes: number; maxConcurrent: number; reflection: boolean }>;
  shadow: readonly Readonly<{ match: MatchConfig; path: string }>[];
  /** Undefined: no decision is kept. */
  cache: Readonly<{ ttlMs: number; maxEntries: number }> | undefined;
  /** Requests of one SPIFFE ID; undefined: as many as it likes. */
  rateLimit: Readonly<{ requestsPerSecond: number; burst: number }> | undefined;
  body: Readonly<{ parse: boolean; maxBytes: number; protoDescriptor: string | undefined }>;
}>;

export type PolicyConfig = Readonly<{
  engine: 'opa' | 'wasm';
  timeoutMs: number;
  /** Without IDs the OPA of an https url proves itself by the Web PKI. */
  opa: Readonly<{
    url: string;
    spiffeIds: readonly SpiffeId[];
    /** `target` is OPA's id of a policy, or the path of a document. */
    push: readonly Readonly<{ kind: 'policy' | 'data'; target: string; file: string }>[];
  }>;
  /** At least one whenever `engine` is wasm and ext_authz is on; names are unique. */
  bundles: readonly BundleConfig[];
}>;

/** One partner of `federation.trust_domains`. */
export type FederatedDomainConfig = Readonly<{
  trustDomain: TrustDomain;
  bundleEndpoint: string;
  /** The SPIFFE ID is there exactly with https_spiffe. */
  profile:
    | Readonly<{ kind: 'https_spiffe'; endpointSpiffeId: SpiffeId }>
    | Readonly<{ kind: 'https_web'; caFile: string | undefined }>;
  bootstrapBundle: string | undefined;
  allowedIdentities: readonly IdPattern[];
}>;

export type FederationConfig = Readonly<{
  persistDir: string | undefined;
  trustDomains: readonly FederatedDomainConfig[];
  serve:
    | Readonly<{
        listen: HostPort;
        refreshHintS: number;
        /** Files for https_web; undefined: https_spiffe. */
        files: Readonly<{ certificate: string; privateKey: string }> | undefined;
      }>
    | undefined;
}>;

type OutputSignalName = NonNullable<Options['outputs'][number]['signal']>['name'];

/** One directory of files for programs that cannot speak SDS. */
export type OutputConfig = Readonly<{
  directory: string;
  certificate: string;
  privateKey: string;
  bundle: string;
  federated: boolean;
  mode: number;
  secretMode: number;
  jwt: readonly Readonly<{ audience: string; file: string }>[];
  signal: Readonly<{ pidFile: string; name: OutputSignalName }> | undefined;
}>;

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
  admin: Readonly<{ listen: HostPort; allowJwtSvid: boolean; probeListen: HostPort | undefined }>;
  decisionLog: Readonly<{
    console: boolean;
    mask: readonly string[];
    service: Readonly<{ url: string | undefined }>;
    sample: number;
  }>;
  /** Undefined: off. */
  tracing: Readonly<{ endpoint: string; sample: number; serviceName: string }> | undefined;
  log: Readonly<{ level: 'debug' | 'info' | 'warn' | 'error' }>;
}>;

/** Turns checked options into the Config. `configPath` is the file that relative names count from. */
export function buildConfig(options: Options, configPath: string | undefined): Config {
  const { identity, sds, ext_authz: authz, policy, admin, decision_log: decisionLog } = options;
  return deepFreeze({
    identity: {
      source: identity.source,
      workloadApi: {
        address: identity.workload_api.address,
        onPermissionDenied: identity.workload_api.on_permission_denied,
      },
      files: identity.source === 'files' ? filesOf(identity.files, configPath) : undefined,
      dev: identity.source === 'dev' ? devOf(identity.dev) : undefined,
    },
    trustDomain: options.trust_domain,
    listen: options.listen,
    listenMode: options.listen_mode,
    sds: {
      enabled: sds.enabled,
      defaultSvidName: sds.default_svid_name,
      defaultBundleName: sds.default_bundle_name,
      defaultAllBundlesName: sds.default_all_bundles_name,
      spiffeValidator: sds.spiffe_validator,
      defaultSvidHint: sds.default_svid_hint,
      jwtAudiences: sds.jwt_audiences,
      unknownNames: sds.unknown_names,
    },
    extAuthz: {
      enabled: authz.enabled,
      listen: isDeepStrictEqual(authz.listen, options.listen) ? undefined : authz.listen,
      path: authz.path,
      input: authz.input,
      queries: authz.queries.map(({ match, path, input, dry_run: dryRun, cache_key: cacheKey, set }) => ({
        match,
        path,
        input,
        dryRun,
        cacheKey,
        set,
      })),
      peer: {
        require: authz.peer.require,
        verifyCertificate: authz.peer.verify_certificate,
        trustXfcc: authz.peer.trust_xfcc,
        jwtSvid: authz.peer.jwt_svid,
        allowedIdentities: authz.peer.allowed_identities,
        deniedIdentities: authz.peer.denied_identities,
        deniedIdentitiesFile:
          authz.peer.denied_identities_file && resolveFile(authz.peer.denied_identities_file, configPath),
      },
      dryRun: authz.dry_run,
      onFailure: authz.on_failure,
      headerMode: authz.header_mode,
      injectJwtSvid: authz.inject_jwt_svid,
      bridge: authz.bridge.map(({ match, jwks_url: jwksUrl, issuer, audience, header, ...rest }) => ({
        match,
        jwksUrl,
        issuer,
        audience,
        header,
        spiffeId: rest.spiffe_id,
        mintAudience: rest.mint_audience,
      })),
      tls:
        authz.tls.client_spiffe_ids.length === 0
          ? undefined
          : { clientSpiffeIds: authz.tls.client_spiffe_ids },
      limits: {
        maxMessageBytes: authz.limits.max_message_bytes,
        maxConcurrent: authz.limits.max_concurrent,
        reflection: authz.limits.reflection,
      },
      shadow: authz.shadow,
      cache:
        authz.cache.ttl > 0 ? { ttlMs: authz.cache.ttl, maxEntries: authz.cache.max_entries } : undefined,
      rateLimit:
        authz.rate_limit.requests_per_second > 0
          ? { requestsPerSecond: authz.rate_limit.requests_per_second, burst: authz.rate_limit.burst }
          : undefined,
      body: {
        parse: authz.body.parse,
        maxBytes: authz.body.max_bytes,
        protoDescriptor: authz.body.proto_descriptor && resolveFile(authz.body.proto_descriptor, configPath),
      },
    },
    policy: {
      engine: policy.engine,
      timeoutMs: policy.timeout,
      opa: {
        url: policy.opa.url,
        spiffeIds: policy.opa.spiffe_ids,
        push: policy.opa.push.map(({ policy: id, data = '', file }) => ({
          ...(id === undefined ? { kind: 'data', target: data } : { kind: 'policy', target: id }),
          file: resolveFile(file, configPath),
        })),
      },
      bundles: bundlesOf(options, (file) => resolveFile(file, configPath)),
    },
    federation: federationOf(options.federation, configPath),
    outputs: options.outputs.map((output) => outputOf(output, configPath)),
    admin: {
      listen: admin.listen,
      allowJwtSvid: admin.allow_jwt_svid,
      probeListen: admin.probe_listen,
    },
    decisionLog: {
      console: decisionLog.console,
      mask: decisionLog.mask,
      service: { url: decisionLog.service.url },
      sample: decisionLog.sample,
    },
    tracing: tracingOf(options.tracing),
    log: { level: options.log.level },
  });
}

function tracingOf({
  otlp_endpoint: endpoint,
  sample,
  service_name: serviceName,
}: Options['tracing']): Config['tracing'] {
  return endpoint === undefined ? undefined : { endpoint, sample, serviceName };
}

function filesOf(
  files: Options['identity']['files'],
  configPath: string | undefined,
): FilesIdentityConfig | undefined {
  if (files === undefined) return undefined;
  return {
    certificate: resolveFile(files.certificate, configPath),
    privateKey: resolveFile(files.private_key, configPath),
    bundle: resolveFile(files.bundle, configPath),
    federatedBundles: Object.entries(files.federated_bundles).map(([name, file]) => ({
      trustDomain: parseTrustDomain(name),
      file: resolveFile(file, configPath),
    })),
  };
}

function outputOf(output: Options['outputs'][number], configPath: string | undefined): OutputConfig {
  const { directory, private_key: privateKey, secret_mode: secretMode, signal, ...same } = output;
  return {
    ...same,
    directory: resolveFile(directory, configPath),
    privateKey,
    secretMode,
    signal: signal && { pidFile: resolveFile(signal.pid_file, configPath), name: signal.name },
  };
}

function federationOf(
  { persist_dir: persistDir, trust_domains: trustDomains, serve }: Options['federation'],
  configPath: string | undefined,
): FederationConfig {
  const file = (name: string | undefined): string | undefined =>
    name === undefined ? undefined : resolveFile(name, configPath);
  const certificate = file(serve?.certificate);
  const privateKey = file(serve?.private_key);
  return {
    persistDir: file(persistDir),
    trustDomains: trustDomains.map((entry) => ({
      trustDomain: entry.name,
      bundleEndpoint: entry.bundle_endpoint,
      profile:
        entry.endpoint_spiffe_id === undefined
          ? { kind: 'https_web', caFile: file(entry.ca_file) }
          : { kind: 'https_spiffe', endpointSpiffeId: entry.endpoint_spiffe_id },
      bootstrapBundle: file(entry.bootstrap_bundle),
      allowedIdentities: entry.allowed_identities,
    })),
    serve: serve && {
      listen: serve.listen,
      refreshHintS: Math.max(1, Math.round(serve.refresh_hint / 1000)),
      files: certificate !== undefined && privateKey !== undefined ? { certificate, privateKey } : undefined,
    },
  };
}

function devOf(dev: Options['identity']['dev']): DevIdentityConfig {
  const trustDomain = dev?.trust_domain ?? ('dev.local' as TrustDomain);
  const [first, ...others] = dev?.spiffe_ids ?? [];
  return {
    trustDomain,
    spiffeIds:
      first === undefined ? [parseSpiffeId(`spiffe://${trustDomain}/service/web`)] : [first, ...others],
    svidTtlMs: dev?.svid_ttl ?? 3_600_000,
    jwtSvidTtlMs: dev?.jwt_svid_ttl ?? 300_000,
    serveWorkloadApi: dev?.serve_workload_api,
  };
}

function resolveFile(file: string, configPath: string | undefined): string {
  return isAbsolute(file) || configPath === undefined ? file : join(dirname(configPath), file);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const child of Object.values(value)) deepFreeze(child);
  }
  return value;
}
