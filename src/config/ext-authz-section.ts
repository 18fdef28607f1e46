import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { SocketAddress } from '../runtime/socket-address.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { decisionPath, duration, file, inputShape, size, spiffeId, tlsListenAddress } from './fields.ts';
import { buildPeer, type PeerConfig, peer } from './peer-section.ts';
import {
  type BridgeConfig,
  bridge,
  buildBridge,
  buildQuery,
  type InjectionConfig,
  type InputShape,
  injection,
  type MatchConfig,
  type QueryConfig,
  query,
  shadow,
} from './request-entries-section.ts';
import type { ResolveFile } from './resolve-file.ts';

/** Who may pass, and who is asked. */
export const extAuthz = z.strictObject({
  enabled: z.boolean().default(true).describe("Answers Envoy's ext_authz Checks."),
  listen: tlsListenAddress()
    .optional()
    .meta({ otherwise: 'the socket of `listen`', description: 'A socket of its own for ext_authz.' }),
  path: decisionPath()
    .default('envoy/authz/allow')
    .describe('OPA decision when no query matches; in quotes and empty, such a request is denied.'),
  input: inputShape().default('envoy').describe('Shape of the policy input when no query matches.'),
  queries: z
    .array(query)
    .max(1000)
    .default([])
    .describe('The first match picks decision path, input shape and constants.'),
  peer: peer.prefault({}),
  dry_run: z
    .boolean()
    .default(false)
    .describe('Policy denials and engine failures are logged and let through; identity rules stay in force.'),
  on_failure: z
    .enum(['deny', 'error'])
    .default('deny')
    .describe('What an engine failure becomes: a denial, or an error response (Envoy 1.37 or newer).'),
  header_mode: z
    .enum(['overwrite', 'opa_envoy_plugin'])
    .default('overwrite')
    .describe(
      'How headers set by policy meet those present; opa_envoy_plugin sends them as that plugin does.',
    ),
  inject_jwt_svid: z
    .array(injection)
    .max(1000)
    .default([])
    .describe(
      'Requests let through are given a JWT-SVID of the default identity; without one they are denied.',
    ),
  bridge: z
    .array(bridge)
    .max(100)
    .default([])
    .describe('The JWT of another issuer comes in, a JWT-SVID of the SPIFFE ID it stands for goes on.'),
  shadow: z
    .array(shadow)
    .max(100)
    .default([])
    .describe('Decisions that are asked for and logged beside those of queries, and decide nothing.'),
  tls: z
    .strictObject({
      client_spiffe_ids: z
        .array(spiffeId())
        .max(100)
        .default([])
        .describe(
          'Makes ext_authz.listen, a tcp socket of its own, mTLS with our default X.509-SVID; only these clients of our own trust domain may connect. None: no TLS.',
        ),
    })
    .prefault({}),
  limits: z
    .strictObject({
      max_message_bytes: size('64KiB', '64MiB').prefault('4MiB').describe('The largest Check that is read.'),
      max_concurrent: z
        .int()
        .min(1)
        .max(100_000)
        .default(1000)
        .describe('Checks in flight; one more is answered 503 at once.'),
      reflection: z
        .boolean()
        .default(false)
        .describe(
          'Server reflection of gRPC (v1 and v1alpha) on `listen` and `ext_authz.listen`: the services there and their messages.',
        ),
    })
    .prefault({}),
  cache: z
    .strictObject({
      ttl: duration('0s', '1h')
        .prefault('0s')
        .describe(
          'How long decisions of queries with a cache_key are kept; 0s: not at all. Only with engine wasm.',
        ),
      max_entries: z.int().min(1).max(1_000_000).default(10_000).describe('How many are kept.'),
    })
    .prefault({}),
  rate_limit: z
    .strictObject({
      requests_per_second: z
        .number()
        .min(0)
        .max(1_000_000)
        .default(0)
        .describe(
          'Requests of one SPIFFE ID; more are answered 429 with Retry-After. 0: as many as it likes.',
        ),
      burst: z
        .int()
        .min(0)
        .max(1_000_000)
        .default(0)
        .describe('How many of them may come at once; 0: as many as in a second, and at least one.'),
    })
    .prefault({}),
  body: z
    .strictObject({
      parse: z.boolean().default(true).describe('Fills parsed_body of the policy input.'),
      max_bytes: size('0B', '32MiB')
        .prefault('1MiB')
        .describe('The largest body that is parsed; `bootstrap` has Envoy send no more than this.'),
      proto_descriptor: file()
        .optional()
        .describe(
          'A FileDescriptorSet, written by protoc with --include_imports, by which bodies of gRPC requests are parsed.',
        ),
    })
    .prefault({}),
});

export type ExtAuthzConfig = Readonly<{
  enabled: boolean;
  /** Undefined: on the socket of `listen`, also when the file names that one. */
  listen: SocketAddress | undefined;
  /** Empty: a request that no query matches is denied. */
  path: string;
  input: InputShape;
  queries: readonly QueryConfig[];
  peer: PeerConfig;
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

/** `listen` is the socket of the program, where ext_authz is unless it has one of its own. */
export function buildExtAuthz(
  options: z.output<typeof extAuthz>,
  listen: SocketAddress,
  resolve: ResolveFile,
): ExtAuthzConfig {
  const { tls, limits, cache, rate_limit: rateLimit, body } = options;
  return {
    enabled: options.enabled,
    listen: isDeepStrictEqual(options.listen, listen) ? undefined : options.listen,
    path: options.path,
    input: options.input,
    queries: options.queries.map(buildQuery),
    peer: buildPeer(options.peer, resolve),
    dryRun: options.dry_run,
    onFailure: options.on_failure,
    headerMode: options.header_mode,
    injectJwtSvid: options.inject_jwt_svid,
    bridge: options.bridge.map(buildBridge),
    tls: tls.client_spiffe_ids.length === 0 ? undefined : { clientSpiffeIds: tls.client_spiffe_ids },
    limits: {
      maxMessageBytes: limits.max_message_bytes,
      maxConcurrent: limits.max_concurrent,
      reflection: limits.reflection,
    },
    shadow: options.shadow,
    cache: cache.ttl > 0 ? { ttlMs: cache.ttl, maxEntries: cache.max_entries } : undefined,
    rateLimit:
      rateLimit.requests_per_second > 0
        ? { requestsPerSecond: rateLimit.requests_per_second, burst: rateLimit.burst }
        : undefined,
    body: {
      parse: body.parse,
      maxBytes: body.max_bytes,
      protoDescriptor: resolve(body.proto_descriptor),
    },
  };
}
