/** The names and pieces that the end-to-end tests share: one trust domain, a server and two clients in it, one policy. */
import {
  type EnvoyConfig,
  httpListener,
  type Json,
  mtlsCluster,
  sidecarCluster,
} from '../support/envoy-config.ts';

export const trustDomain = 'acme.test';
export const server = 'spiffe://acme.test/server';
export const allowed = 'spiffe://acme.test/allowed';
export const denied = 'spiffe://acme.test/denied';

/** Lets `allowed` pass and tells the upstream who it is; everybody else is denied with a reason. */
export const policy = `package envoy.authz

default allow := {"allowed": false, "reason": "not on the list"}

allow := {"allowed": true, "headers": {"x-peer": input.spiffe.source.id}} if {
	input.spiffe.source.id == "${allowed}"
}
`;

export const entrypoint = 'envoy/authz/allow';

/** An embedded CA that issues the identities above. */
export function devIdentity(more: Json = {}): Json {
  return {
    source: 'dev',
    dev: { trust_domain: trustDomain, spiffe_ids: [server, allowed, denied], svid_ttl: '1h', ...more },
  };
}

export type Ports = Readonly<{ server: number; allowed: number; denied: number }>;

/** A plain listener whose requests go to the server over mTLS, under the identity `id`. */
export function clientSide(name: string, id: string, from: number, to: number): EnvoyConfig {
  return {
    listeners: [httpListener({ name, port: from, cluster: `${name}_to_server` })],
    clusters: [mtlsCluster(`${name}_to_server`, to, { certificate: id, bundle: 'ROOTCA', peer: server })],
  };
}

/** Several configs as one, with the sidecar's cluster. */
export function combined(socket: string, ...configs: readonly EnvoyConfig[]): EnvoyConfig {
  return {
    listeners: configs.flatMap((config) => config.listeners),
    clusters: [sidecarCluster(socket), ...configs.flatMap((config) => config.clusters)],
  };
}
