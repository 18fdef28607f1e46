import { isIP } from 'node:net';
import type { HostPort, SocketAddress } from '../runtime/socket-address.ts';
import { type Json, seconds, typed } from './json.ts';

/** Where a cluster leads: a unix socket, or a host name or IP with a port. */
export type Target = Readonly<{ kind: 'unix'; path: string }> | (Readonly<{ kind: 'tcp' }> & HostPort);

const connectTimeoutMs = 1000;
/**
 * Frames that may wait for the sidecar. Beyond Envoy's own bound (1000 resets) it ends the connection, and with it every
 * Check on it; clients who go away by the hundred could bring that about.
 */
const maxOutboundFrames = 100_000;
/**
 * Calls to the sidecar that Envoy has open or waiting, far above any `max_concurrent`: what is too much the sidecar
 * answers with a denial, while Envoy, at its own bound of 1024, fails the Check without asking.
 */
const maxOpenCalls = 1_000_000;
const protocolOptions = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';

/**
 * The sidecar's gRPC socket as a cluster. HTTP/2 has to be asked for, and keep-alive pings notice a sidecar that hangs:
 * without them a dead stream looks like one on which nothing changes.
 */
export function sidecarCluster(name: string, address: SocketAddress): Json {
  const http2 = {
    connection_keepalive: { interval: seconds(30_000), timeout: seconds(5000) },
    max_outbound_frames: maxOutboundFrames,
    max_outbound_control_frames: maxOutboundFrames,
  };
  return {
    ...cluster(name, address, { explicit_http_config: { http2_protocol_options: http2 } }),
    circuit_breakers: { thresholds: [{ max_requests: maxOpenCalls, max_pending_requests: maxOpenCalls }] },
  };
}

/** A cluster that speaks HTTP/1.1, or HTTP/2 when asked, in plain text; or TCP, which needs no options. */
export function plainCluster(name: string, target: Target, http2: boolean): Json {
  return cluster(name, target, http2 ? { explicit_http_config: { http2_protocol_options: {} } } : undefined);
}

/** A cluster behind TLS; over HTTP, with `http` as options, both versions are offered and ALPN decides. */
export function tlsCluster(
  name: string,
  target: Target,
  http: Json | undefined,
  transportSocket: Json,
): Json {
  const options = http && { ...http, auto_config: { http_protocol_options: {}, http2_protocol_options: {} } };
  return { ...cluster(name, target, options), transport_socket: transportSocket };
}

export function socketAddress({ host, port }: HostPort): Json {
  return { socket_address: { address: host, port_value: port } };
}

function cluster(name: string, target: Target, http: Json | undefined): Json {
  const address = target.kind === 'unix' ? { pipe: { path: target.path } } : socketAddress(target);
  const resolved = target.kind === 'unix' || isIP(target.host) !== 0;
  return {
    name,
    type: resolved ? 'STATIC' : 'STRICT_DNS',
    connect_timeout: seconds(connectTimeoutMs),
    ...(http === undefined
      ? {}
      : { typed_extension_protocol_options: { [protocolOptions]: typed(protocolOptions, http) } }),
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }],
    },
  };
}
