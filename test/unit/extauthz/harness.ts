import { randomUUID } from 'node:crypto';
import type { BodyOptions } from '../../../src/extauthz/body/body.ts';
import type { CheckTrace } from '../../../src/extauthz/check-trace.ts';
import { type Checker, type CheckerOptions, createChecker } from '../../../src/extauthz/checker.ts';
import { compileIdentityList, type IdentityRules } from '../../../src/extauthz/identity-rules.ts';
import { createMtlsPeerSource } from '../../../src/extauthz/peer/mtls-peer.ts';
import type { VerifyCertificate } from '../../../src/extauthz/peer/peer-certificate.ts';
import type { CheckRequest as WireCheckRequest } from '../../../src/grpc/generated/envoy/service/auth/v3/CheckRequest.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import type { Evaluation, PolicyEngine } from '../../../src/policy/policy-engine.ts';
import { compileQueries, type InputShape, type QuerySpec } from '../../../src/policy/query-map.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import type { Certificate } from '../../../src/spiffe/certificate.ts';
import { encodeCertificatesPem } from '../../../src/spiffe/certificate.ts';
import { parseIdPattern } from '../../../src/spiffe/match.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import type { SnapshotReader, TrustSnapshot } from '../../../src/trust/snapshot.ts';
import {
  createTestAuthority,
  type TestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';

const codec = messageCodec('envoy.service.auth.v3.CheckRequest');

/** The attributes as the wire delivers them: written and read back by the real codec. */
export function onTheWire(attributes: WireCheckRequest['attributes']): unknown {
  return codec.decode(codec.encode({ attributes: attributes ?? null }));
}

/** As Envoy writes a certificate into `source.certificate`. */
export function urlEncodedPem(...chain: readonly Certificate[]): string {
  return encodeURIComponent(encodeCertificatesPem(chain).toString('latin1'));
}

export const web = 'spiffe://example.org/service/web';
export const api = 'spiffe://example.org/service/api';

/** What an Envoy with include_peer_certificate sends for a GET by `web`. */
export function getRequest(
  options: {
    principal?: string;
    certificate?: string;
    path?: string;
    method?: string;
    host?: string;
    headers?: Record<string, string>;
    body?: string;
    contextExtensions?: Record<string, string>;
  } = {},
): WireCheckRequest['attributes'] {
  const { principal = web, certificate = '', path = '/v1/balances/7?full=1', method = 'GET' } = options;
  return {
    source: {
      address: { socketAddress: { address: '10.0.0.7', portValue: 41_000 } },
      principal,
      certificate,
    },
    destination: { address: { socketAddress: { address: '10.0.0.8', portValue: 443 } }, principal: api },
    request: {
      time: { seconds: 1_780_000_000, nanos: 5_000_000 },
      http: {
        id: '42',
        method,
        path,
        host: options.host ?? 'api.example.org',
        scheme: 'https',
        protocol: 'HTTP/2',
        headers: { ':path': path, ':method': method, ...options.headers },
        body: options.body ?? '',
      },
    },
    metadataContext: {},
    routeMetadataContext: {},
    ...(options.contextExtensions === undefined ? {} : { contextExtensions: options.contextExtensions }),
  };
}

/** What the network filter sends: no request at all. */
export function tcpConnection(principal = web): WireCheckRequest['attributes'] {
  return {
    source: { address: { socketAddress: { address: '10.0.0.7', portValue: 41_000 } }, principal },
    destination: { address: { socketAddress: { address: '10.0.0.8', portValue: 5432 } }, principal: api },
  };
}

/** Trust in example.org and partner.example, with an own SVID for `api`. */
export type Trust = Readonly<{ own: TestAuthority; partner: TestAuthority; snapshot: TrustSnapshot }>;

export async function createTrust(): Promise<Trust> {
  const [own, partner] = await Promise.all([
    createTestAuthority('example.org'),
    createTestAuthority('partner.example'),
  ]);
  const snapshot: TrustSnapshot = {
    version: 1,
    trustDomain: parseTrustDomain('example.org'),
    svids: [await own.svid(api)],
    intermediates: [],
    bundles: x509Bundles(x509Bundle('example.org', [own]), x509Bundle('partner.example', [partner])),
    jwtBundles: new Map(),
  };
  return { own, partner, snapshot };
}

/** A reader whose snapshot the test replaces. */
export function snapshotHolder(first: TrustSnapshot): SnapshotReader & { set(next: TrustSnapshot): void } {
  let held = first;
  return {
    current: () => held,
    async *changes() {
      yield held;
    },
    set(next) {
      held = next;
    },
  };
}

/** An engine that is a function; it sees its input as JSON, like every real one. */
export function functionEngine(
  evaluate: (path: string, input: unknown, signal: AbortSignal) => Evaluation | Promise<Evaluation>,
  ready = true,
): PolicyEngine {
  return {
    name: 'wasm',
    evaluate: async (path, input, signal) =>
      evaluate(path, JSON.parse(JSON.stringify(input)) as unknown, signal),
    ready: () => ready,
    revision: () => 'r1',
  };
}

export function answering(value: unknown): PolicyEngine {
  return functionEngine(() => (value === undefined ? { kind: 'undefined' } : { kind: 'result', value }));
}

export function failing(reason: 'engine_unavailable' | 'engine_timeout' | 'engine_error'): PolicyEngine {
  return functionEngine(() => ({ kind: 'failure', reason, message: `made to fail: ${reason}` }));
}

/** The parts of a checker that a test wants otherwise. */
export type CheckerParts = Readonly<{
  snapshots?: SnapshotReader;
  engine?: PolicyEngine;
  queries?: readonly QuerySpec[];
  defaultPath?: string;
  defaultInput?: InputShape;
  verifyCertificate?: VerifyCertificate;
  rules?: Partial<IdentityRules>;
  identityRules?: CheckerOptions['identityRules'];
  body?: BodyOptions;
  timeoutMs?: number;
  dryRun?: boolean;
  dryRunQueries?: ReadonlySet<number>;
  now?: () => number;
  log?: CheckerOptions['log'];
  peerSources?: CheckerOptions['peerSources'];
  trustXfcc?: boolean;
  credentials?: CheckerOptions['credentials'];
  rateLimit?: CheckerOptions['rateLimit'];
  cache?: CheckerOptions['cache'];
}>;

export function checkerWith(trust: Trust, parts: CheckerParts = {}): Checker {
  const now = parts.now ?? (() => testNow);
  return createChecker({
    snapshots: parts.snapshots ?? snapshotHolder(trust.snapshot),
    engine: parts.engine ?? answering(true),
    queries: compileQueries(parts.queries ?? [], {
      defaultPath: parts.defaultPath ?? 'envoy/authz/allow',
      defaultInput: parts.defaultInput ?? 'envoy',
    }),
    peerSources: parts.peerSources ?? [
      createMtlsPeerSource({ verifyCertificate: parts.verifyCertificate ?? 'when_present', now }),
    ],
    trustXfcc: parts.trustXfcc,
    identityRules:
      parts.identityRules ?? (() => ({ requirePeer: true, denied: identities(), ...parts.rules })),
    credentials: parts.credentials,
    rateLimit: parts.rateLimit,
    cache: parts.cache,
    body: parts.body ?? { parse: true, maxBytes: 1_048_576 },
    timeoutMs: parts.timeoutMs ?? 60_000,
    dryRun: parts.dryRun ?? false,
    dryRunQueries: parts.dryRunQueries,
    newDecisionId: randomUUID,
    now,
    monotonicNow: () => performance.now(),
    log: parts.log ?? silentLogger,
  });
}

export function identities(...patterns: readonly string[]) {
  return compileIdentityList(patterns.map(parseIdPattern));
}

export const neverAborted: AbortSignal = new AbortController().signal;

/** One Check, with the attributes sent over the wire first. */
export function checkOnce(
  trust: Trust,
  parts: CheckerParts,
  attributes: WireCheckRequest['attributes'],
): Promise<CheckTrace> {
  return checkerWith(trust, parts).check(onTheWire(attributes), neverAborted);
}
