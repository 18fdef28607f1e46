import type { X509Bundle } from '../spiffe/bundle.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import type { Readiness } from './readiness.ts';
import type { RecentDecision } from './recent-decisions.ts';
import { formatTime } from './time.ts';

/** An SDS stream as the SDS room tells it; times in milliseconds since the epoch. */
export type EnvoyStream = Readonly<{
  protocol: string;
  openedAt: number;
  nodeId: string;
  cluster: string;
  everything: boolean;
  names: readonly string[];
  version: string;
  ack: string;
  nackMessage: string | undefined;
}>;

/** What the status is made of; times in milliseconds since the epoch. */
export type StatusParts = Readonly<{
  version: string;
  startedAt: number;
  now: number;
  readiness: Readiness;
  snapshot: TrustSnapshot;
  identity: Readonly<{ source: string; problem: string | undefined }>;
  envoys: readonly EnvoyStream[];
  /** Undefined when ext_authz is off. */
  policy: PolicyState | undefined;
  decisions: readonly RecentDecision[];
  outputs: readonly OutputDirectory[];
}>;

/** The policy engine; `bundles` are those of engine wasm. */
export type PolicyState = Readonly<{
  engine: string;
  ready: boolean;
  problem: string | undefined;
  bundles: readonly PolicyBundle[];
}>;

type PolicyBundle = Readonly<{
  name: string;
  /** Empty when none is in force. */
  revision: string;
  digest: string;
  problem: string | undefined;
  /** Milliseconds since the epoch. */
  activatedAt: number | undefined;
  service?: BundleService | undefined;
}>;

/** Where a bundle is asked for; times in milliseconds since the epoch. */
type BundleService = Readonly<{
  location: string;
  /** Of the version that the service gave last. */
  etag: string | undefined;
  requestedAt: number | undefined;
  answeredAt: number | undefined;
}>;

/** Files for programs that cannot speak SDS; times in milliseconds since the epoch. */
export type OutputDirectory = Readonly<{
  directory: string;
  writtenAt: number | undefined;
  problem: string | undefined;
}>;

/** What /status answers and the status page shows. No private key, no token; times in RFC 3339. */
export type Status = ReturnType<typeof buildStatus>;

export function buildStatus(parts: StatusParts) {
  const { snapshot, identity, policy } = parts;
  return Object.freeze({
    version: parts.version,
    started_at: formatTime(parts.startedAt),
    time: formatTime(parts.now),
    ready: parts.readiness.ready,
    missing: parts.readiness.missing,
    identity: {
      source: identity.source,
      ...(snapshot.trustDomain === undefined ? {} : { trust_domain: snapshot.trustDomain }),
      ...(identity.problem === undefined ? {} : { problem: identity.problem }),
      svids: snapshot.svids.map((svid) => svidStatus(svid, parts.now)),
    },
    trust_domains: [...snapshot.bundles.values()].map((bundle) => bundleStatus(bundle, snapshot)),
    envoys: parts.envoys.map(envoyStatus),
    ...(policy === undefined
      ? {}
      : {
          policy: {
            engine: policy.engine,
            ready: policy.ready,
            ...(policy.problem === undefined ? {} : { problem: policy.problem }),
            bundles: policy.bundles.map(policyBundleStatus),
          },
        }),
    decisions: parts.decisions.map(decisionStatus),
    outputs: parts.outputs.map(outputStatus),
  });
}

function svidStatus({ spiffeId, hint, chain: [leaf] }: X509Svid, now: number) {
  return {
    spiffe_id: spiffeId,
    ...(hint === '' ? {} : { hint }),
    serial: leaf.serial,
    not_before: formatTime(leaf.notBefore),
    expires_at: formatTime(leaf.notAfter),
    expired: leaf.notAfter < now,
  };
}

function bundleStatus({ trustDomain, authorities }: X509Bundle, snapshot: TrustSnapshot) {
  return {
    name: trustDomain,
    own: trustDomain === snapshot.trustDomain,
    x509_authorities: authorities.length,
    jwt_authorities: snapshot.jwtBundles.get(trustDomain)?.authorities.length ?? 0,
    ...(authorities.length === 0
      ? {}
      : { expires_at: formatTime(Math.max(...authorities.map(({ notAfter }) => notAfter))) }),
  };
}

function envoyStatus(stream: EnvoyStream) {
  return {
    node_id: stream.nodeId,
    cluster: stream.cluster,
    protocol: stream.protocol,
    opened_at: formatTime(stream.openedAt),
    names: stream.everything ? ['*'] : stream.names,
    version: stream.version,
    ack: stream.ack,
    ...(stream.nackMessage === undefined ? {} : { nack_message: stream.nackMessage }),
  };
}

function policyBundleStatus({ name, revision, digest, problem, activatedAt, service }: PolicyBundle) {
  return {
    name,
    ...(digest === '' ? {} : { revision, digest }),
    ...(activatedAt === undefined ? {} : { activated_at: formatTime(activatedAt) }),
    ...(problem === undefined ? {} : { problem }),
    ...(service === undefined ? {} : { service: bundleServiceStatus(service) }),
  };
}

function bundleServiceStatus({ location, etag, requestedAt, answeredAt }: BundleService) {
  return {
    url: location,
    ...(etag === undefined ? {} : { etag }),
    ...(requestedAt === undefined ? {} : { requested_at: formatTime(requestedAt) }),
    ...(answeredAt === undefined ? {} : { answered_at: formatTime(answeredAt) }),
  };
}

function outputStatus({ directory, writtenAt, problem }: OutputDirectory) {
  return {
    directory,
    ...(writtenAt === undefined ? {} : { written_at: formatTime(writtenAt) }),
    ...(problem === undefined ? {} : { problem }),
  };
}

function decisionStatus({ decisionId, at, outcome, reasonCode, peer, request }: RecentDecision) {
  return {
    time: formatTime(at),
    decision_id: decisionId,
    outcome,
    ...(reasonCode === undefined ? {} : { reason_code: reasonCode }),
    ...(peer === undefined ? {} : { peer }),
    ...(request === undefined ? {} : { request }),
  };
}
