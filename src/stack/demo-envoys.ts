import type { Config } from '../config/config.ts';
import { type BootstrapOptions, buildBootstrap } from '../envoy/bootstrap.ts';
import { parseIdPattern } from '../spiffe/match.ts';

type Json = Readonly<Record<string, unknown>>;

/** An Envoy of the demo: where it listens, where its admin interface is, and under which SPIFFE ID it runs. */
export type EnvoyPlace = Readonly<{ port: number; adminPort: number; spiffeId: string }>;

const loopback = '127.0.0.1';

/** The Envoy in front of the demo's service, exactly as `svidecar bootstrap` would have it. */
export function serverBootstrap(config: Config, place: EnvoyPlace, upstreamPort: number): Json {
  return bootstrap(config, place, {
    mode: 'server',
    upstream: { kind: 'tcp', host: loopback, port: upstreamPort },
  });
}

/**
 * The Envoy beside a caller, as `svidecar bootstrap` would have it, but that it ends a connection after 20 requests: the
 * demo wants many handshakes while certificates rotate.
 */
export function clientBootstrap(config: Config, place: EnvoyPlace, server: EnvoyPlace): Json {
  const built = bootstrap(config, place, {
    mode: 'client',
    upstream: { kind: 'tcp', host: loopback, port: server.port },
    upstreamIdentity: parseIdPattern(server.spiffeId),
  });
  return withUpstream(built, (cluster) => {
    const name = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
    const options = objectAt(objectAt(cluster, 'typed_extension_protocol_options'), name);
    const common = objectAt(options, 'common_http_protocol_options');
    const limited = {
      ...options,
      common_http_protocol_options: { ...common, max_requests_per_connection: 20 },
    };
    return { ...cluster, typed_extension_protocol_options: { [name]: limited } };
  });
}

/**
 * A caller's Envoy that trusts whatever server it meets. With it the demo shows that the server's side alone keeps a
 * stranger out; a real client never runs like this.
 */
export function strangerBootstrap(config: Config, place: EnvoyPlace, server: EnvoyPlace): Json {
  return withUpstream(clientBootstrap(config, place, server), (cluster) => {
    const socket = objectAt(cluster, 'transport_socket');
    const context = objectAt(socket, 'typed_config');
    const { combined_validation_context: _, ...common } = objectAt(context, 'common_tls_context');
    const blind = { ...socket, typed_config: { ...context, common_tls_context: common } };
    return { ...cluster, transport_socket: blind };
  });
}

type Role = Pick<BootstrapOptions, 'mode' | 'upstream' | 'upstreamIdentity'>;

function bootstrap(config: Config, { port, adminPort, spiffeId }: EnvoyPlace, role: Role): Json {
  // One sidecar serves several workloads here, so each Envoy names its SVID.
  const named: Config = { ...config, sds: { ...config.sds, defaultSvidName: spiffeId } };
  return buildBootstrap(named, {
    ...role,
    protocol: 'http',
    sds: role.mode === 'server' ? 'delta' : 'sotw',
    listener: { host: loopback, port },
    admin: { host: loopback, port: adminPort },
    nodeId: spiffeId,
    nodeCluster: 'demo',
  });
}

function withUpstream(built: Json, change: (cluster: Json) => Json): Json {
  const resources = objectAt(built, 'static_resources');
  const clusters = resources.clusters as readonly Json[];
  return {
    ...built,
    static_resources: {
      ...resources,
      clusters: clusters.map((cluster) => (cluster.name === 'upstream' ? change(cluster) : cluster)),
    },
  };
}

function objectAt(value: Json, key: string): Json {
  return (value[key] ?? {}) as Json;
}
