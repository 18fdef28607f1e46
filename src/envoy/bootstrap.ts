import type { Config } from '../config/config.ts';
import { formatYaml } from '../config/yaml.ts';
import { ConfigError, type ConfigProblem } from '../runtime/errors.ts';
import type { HostPort, SocketAddress } from '../runtime/socket-address.ts';
import { plainCluster, sidecarCluster, socketAddress, type Target, tlsCluster } from './cluster.ts';
import { connectionAge } from './connection-age.ts';
import { httpAuthzFilter, tcpAuthzFilter } from './ext-authz.ts';
import { type Json, typed } from './json.ts';
import { downstreamTls, type PeerPattern, type TlsOptions, upstreamTls } from './tls-context.ts';

export type BootstrapOptions = Readonly<{
  /** server: mTLS in, plain text to the application. client: plain text in from the application, mTLS out. */
  mode: 'server' | 'client';
  protocol: 'http' | 'tcp';
  sds: 'sotw' | 'delta';
  /** Where Envoy listens. */
  listener: HostPort;
  /** server: the application. client: the Envoy that is called. */
  upstream: Target;
  /** client only, and required there: who the called Envoy must be. */
  upstreamIdentity?: PeerPattern | undefined;
  /** server: speak HTTP/2 in plain text to the application, as gRPC needs. */
  upstreamHttp2?: boolean | undefined;
  /** Which bundles a peer may be of; by default `all` when allowed identities of another domain are named. */
  trust?: 'own' | 'all' | undefined;
  /** Envoy's own admin interface; absent, there is none. */
  admin?: HostPort | undefined;
  nodeId: string;
  nodeCluster: string;
}>;

const sidecar = 'svidecar';
const sidecarAuthz = 'svidecar_ext_authz';
const upstream = 'upstream';

/** An Envoy bootstrap that fits the sidecar's config, as plain data. Throws ConfigError when the two cannot fit. */
export function buildBootstrap(config: Config, options: BootstrapOptions): Json {
  const problems = problemsOf(config, options);
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    node: { id: options.nodeId, cluster: options.nodeCluster },
    ...(options.admin === undefined ? {} : { admin: { address: socketAddress(options.admin) } }),
    static_resources: {
      listeners: [options.mode === 'server' ? serverListener(config, options) : clientListener(options)],
      clusters: clusters(config, options),
    },
  };
}

/** The bootstrap as the YAML that `envoy -c` reads. */
export function formatBootstrap(bootstrap: Json): string {
  return formatYaml(bootstrap);
}

function problemsOf(config: Config, { mode, upstreamIdentity }: BootstrapOptions): readonly ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  if (!config.sds.enabled) {
    problems.push({ path: 'sds.enabled', message: 'is false, so Envoy would have no certificate' });
  }
  if (mode === 'client' && upstreamIdentity === undefined) {
    problems.push({
      path: '--upstream-spiffe-id',
      message: 'is required for a client: without it any workload that the bundle vouches for could answer',
    });
  }
  if (mode === 'server') problems.push(...peerProblems(config));
  return problems;
}

/** An Envoy without matchers lets everybody in, one with matchers nobody else. */
function peerProblems(config: Config): readonly ConfigProblem[] {
  const { allowedIdentities } = config.extAuthz.peer;
  if (allowedIdentities !== undefined) {
    return allowedPeers(config).length > 0
      ? []
      : [
          {
            path: 'ext_authz.peer.allowed_identities',
            message: `${allowedIdentities.length === 0 ? 'is empty' : 'names partners only, which their federation entries decide on'}, so nobody may connect; an Envoy without matchers would let everybody in`,
          },
        ];
  }
  return partnerPeers(config).length > 0 && ownDomain(config) === undefined
    ? [
        {
          path: 'trust_domain',
          message: 'is needed: beside the allowed identities of partners those of our own have to be listed',
        },
      ]
    : [];
}

function clusters(config: Config, options: BootstrapOptions): readonly Json[] {
  const own = [sidecarCluster(sidecar, config.listen)];
  const { listen } = config.extAuthz;
  if (options.mode === 'client') {
    const tls = upstreamTls(tlsOptions(config, options));
    const http = options.protocol === 'http' ? connectionAge(config, 'client') : undefined;
    return [...own, tlsCluster(upstream, options.upstream, http, tls)];
  }
  if (listen !== undefined)
    own.push({ ...sidecarCluster(sidecarAuthz, reachable(listen)), ...authzTls(config, options) });
  return [...own, plainCluster(upstream, options.upstream, options.upstreamHttp2 ?? false)];
}

/**
 * This Envoy and the sidecar show the same SVID, the default one. So it has to be in the list of clients, and the list
 * names the sidecar, too.
 */
function authzTls(config: Config, options: BootstrapOptions): Json {
  const { tls } = config.extAuthz;
  if (tls === undefined) return {};
  const peers = tls.clientSpiffeIds.map((id) => ({ text: id, pieces: [id] as const }));
  const bundleName = config.sds.defaultBundleName;
  return { transport_socket: upstreamTls({ ...tlsOptions(config, options), bundleName, peers, http: true }) };
}

/** A socket on every address of the machine is reached on loopback. */
function reachable(address: SocketAddress): SocketAddress {
  if (address.kind === 'unix') return address;
  if (address.host === '0.0.0.0') return { ...address, host: '127.0.0.1' };
  return address.host === '::' ? { ...address, host: '::1' } : address;
}

function serverListener(config: Config, options: BootstrapOptions): Json {
  const { enabled, listen } = config.extAuthz;
  const authz = listen === undefined ? sidecar : sidecarAuthz;
  const filters =
    options.protocol === 'http'
      ? [
          httpManager('ingress', enabled ? [httpAuthzFilter(config, authz)] : [], {
            ...inboundHttp,
            ...connectionAge(config, 'server'),
          }),
        ]
      : [...(enabled ? [tcpAuthzFilter(config, authz)] : []), tcpProxy('ingress')];
  return listener('ingress', options.listener, {
    transport_socket: downstreamTls(tlsOptions(config, options)),
    filters,
  });
}

function clientListener(options: BootstrapOptions): Json {
  const filter = options.protocol === 'http' ? httpManager('egress', [], {}) : tcpProxy('egress');
  return listener('egress', options.listener, { filters: [filter] });
}

function tlsOptions(config: Config, options: BootstrapOptions): TlsOptions {
  const { sds } = config;
  const server = options.mode === 'server';
  const peers = server ? allowedPeers(config) : [options.upstreamIdentity].filter((id) => id !== undefined);
  const trust = options.trust ?? (isForeign(peers, ownDomain(config)) ? 'all' : 'own');
  return {
    cluster: sidecar,
    protocol: options.sds,
    svidName: sds.defaultSvidName,
    bundleName: trust === 'all' ? sds.defaultAllBundlesName : sds.defaultBundleName,
    peers,
    http: options.protocol === 'http',
  };
}

/**
 * Without allowed identities that is every ID of the own domain, which only a config that names it can write down. Of a
 * partner domain its federation entry alone decides, as in Checks.
 */
function allowedPeers(config: Config): readonly PeerPattern[] {
  const own = ownDomain(config);
  const allowed = config.extAuthz.peer.allowedIdentities ?? (own === undefined ? [] : [everyIdOf(own)]);
  const federated = new Set(config.federation.trustDomains.map(({ trustDomain }) => trustDomain));
  return [...allowed.filter(({ trustDomain }) => !federated.has(trustDomain)), ...partnerPeers(config)];
}

function partnerPeers({ federation }: Config): readonly PeerPattern[] {
  return federation.trustDomains.flatMap(({ allowedIdentities }) => allowedIdentities);
}

function everyIdOf(trustDomain: PeerPattern['trustDomain']): PeerPattern {
  return { text: `spiffe://${trustDomain}/*`, trustDomain, pieces: [`spiffe://${trustDomain}/`, ''] };
}

function ownDomain({ trustDomain, identity }: Config): PeerPattern['trustDomain'] | undefined {
  return trustDomain ?? identity.dev?.trustDomain;
}

function isForeign(peers: readonly PeerPattern[], own: string | undefined): boolean {
  const domains = new Set(peers.map((peer) => peer.trustDomain));
  return own === undefined ? domains.size > 1 : [...domains].some((domain) => domain !== own);
}

function listener(name: string, address: HostPort, filterChain: Json): Json {
  return { name, address: socketAddress(address), filter_chains: [filterChain] };
}

/**
 * Policy, routes and the application must see the same path, so it is made plain before any of them; what a peer says
 * of its own certificate is replaced by what its handshake proved. The chain is for the sidecar: of the certificates that a
 * peer sends, ext_authz itself hands on the leaf alone.
 */
const inboundHttp: Json = {
  use_remote_address: true,
  normalize_path: true,
  merge_slashes: true,
  path_with_escaped_slashes_action: 'REJECT_REQUEST',
  forward_client_cert_details: 'SANITIZE_SET',
  set_current_client_cert_details: { uri: true, chain: true },
};

function httpManager(statPrefix: string, filters: readonly Json[], fields: Json): Json {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: typed('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', {
      stat_prefix: statPrefix,
      ...fields,
      route_config: {
        name: statPrefix,
        virtual_hosts: [
          { name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: upstream } }] },
        ],
      },
      http_filters: [
        ...filters,
        {
          name: 'envoy.filters.http.router',
          typed_config: typed('envoy.extensions.filters.http.router.v3.Router', {}),
        },
      ],
    }),
  };
}

function tcpProxy(statPrefix: string): Json {
  return {
    name: 'envoy.filters.network.tcp_proxy',
    typed_config: typed('envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy', {
      stat_prefix: statPrefix,
      cluster: upstream,
    }),
  };
}
