/**
 * Pieces of Envoy configuration for tests, written out plainly: what a test runs must not come from the code it tests.
 * Values are JSON, which Envoy reads as it reads YAML.
 */
export type Json = Readonly<Record<string, unknown>>;

export type EnvoyConfig = Readonly<{ listeners: readonly Json[]; clusters: readonly Json[] }>;

const type = (name: string): string => `type.googleapis.com/${name}`;

const address = (port: number): Json => ({ socket_address: { address: '127.0.0.1', port_value: port } });

const endpoints = (name: string, at: Json): Json => ({
  cluster_name: name,
  endpoints: [{ lb_endpoints: [{ endpoint: { address: at } }] }],
});

/** The sidecar as an HTTP/2 cluster named `svidecar`. */
export function sidecarCluster(socket: string): Json {
  return {
    name: 'svidecar',
    type: 'STATIC',
    connect_timeout: '1s',
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': type('envoy.extensions.upstreams.http.v3.HttpProtocolOptions'),
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
    load_assignment: endpoints('svidecar', { pipe: { path: socket } }),
  };
}

/** A plain cluster on a loopback port. */
export function plainCluster(name: string, port: number): Json {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '1s',
    load_assignment: endpoints(name, address(port)),
  };
}

export type SdsProtocol = 'GRPC' | 'DELTA_GRPC';

/** The secret `name` from the sidecar. Reconnects are tried soon, so that restarts are seen within a test's patience. */
export function sdsSecret(name: string, protocol: SdsProtocol = 'GRPC'): Json {
  return {
    name,
    sds_config: {
      resource_api_version: 'V3',
      initial_fetch_timeout: '3s',
      api_config_source: {
        api_type: protocol,
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [
          {
            envoy_grpc: {
              cluster_name: 'svidecar',
              retry_policy: { retry_back_off: { base_interval: '0.1s', max_interval: '1s' } },
            },
          },
        ],
      },
    },
  };
}

export type TlsOptions = Readonly<{
  /** Secret name of the own certificate. */
  certificate: string;
  /** Secret name of the trusted bundle; undefined trusts everything. */
  bundle: string | undefined;
  /** The peer's SPIFFE ID, when it is pinned. */
  peer?: string;
  protocol?: SdsProtocol;
}>;

function commonTls({ certificate, bundle, peer, protocol }: TlsOptions): Json {
  const matchers =
    peer === undefined
      ? {}
      : { match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: peer } }] };
  return {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificate_sds_secret_configs: [sdsSecret(certificate, protocol)],
    ...(bundle === undefined
      ? {}
      : {
          combined_validation_context: {
            default_validation_context: matchers,
            validation_context_sds_secret_config: sdsSecret(bundle, protocol),
          },
        }),
  };
}

/** The server side of mTLS: a client certificate is required. */
export function downstreamTls(options: TlsOptions): Json {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': type('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
      require_client_certificate: true,
      common_tls_context: commonTls(options),
    },
  };
}

/** The client side of mTLS. */
export function upstreamTls(options: TlsOptions): Json {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': type('envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
      common_tls_context: commonTls(options),
    },
  };
}

/** An HTTP/1.1 cluster on a loopback port, reached over mTLS; a connection ends after 20 requests, for new handshakes. */
export function mtlsCluster(name: string, port: number, tls: TlsOptions): Json {
  return {
    ...plainCluster(name, port),
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': type('envoy.extensions.upstreams.http.v3.HttpProtocolOptions'),
        common_http_protocol_options: { max_requests_per_connection: 20 },
        explicit_http_config: { http_protocol_options: {} },
      },
    },
    transport_socket: upstreamTls(tls),
  };
}

const authzService: Json = { envoy_grpc: { cluster_name: 'svidecar' }, timeout: '2s' };

/** The HTTP ext_authz filter asking the sidecar. */
export function extAuthz(extra: Json = {}): Json {
  return {
    name: 'envoy.filters.http.ext_authz',
    typed_config: {
      '@type': type('envoy.extensions.filters.http.ext_authz.v3.ExtAuthz'),
      transport_api_version: 'V3',
      failure_mode_allow: false,
      include_peer_certificate: true,
      grpc_service: authzService,
      ...extra,
    },
  };
}

/** The credential injector, which sends the generic secret `name` of the sidecar as bearer token. */
export function credentialInjector(name: string, protocol: SdsProtocol = 'GRPC'): Json {
  return {
    name: 'envoy.filters.http.credential_injector',
    typed_config: {
      '@type': type('envoy.extensions.filters.http.credential_injector.v3.CredentialInjector'),
      overwrite: true,
      credential: {
        name: 'envoy.http.injected_credentials.generic',
        typed_config: {
          '@type': type('envoy.extensions.http.injected_credentials.generic.v3.Generic'),
          credential: sdsSecret(name, protocol),
          header: 'authorization',
          header_value_prefix: 'Bearer ',
        },
      },
    },
  };
}

/** The network ext_authz filter asking the sidecar. */
export function tcpExtAuthz(): Json {
  return {
    name: 'envoy.filters.network.ext_authz',
    typed_config: {
      '@type': type('envoy.extensions.filters.network.ext_authz.v3.ExtAuthz'),
      stat_prefix: 'authz',
      transport_api_version: 'V3',
      failure_mode_allow: false,
      include_peer_certificate: true,
      grpc_service: authzService,
    },
  };
}

export type HttpListenerOptions = Readonly<{
  name: string;
  port: number;
  /** The cluster that gets every request; undefined answers 200 itself. */
  cluster?: string;
  tls?: TlsOptions;
  filters?: readonly Json[];
  /** Routes that come before the one for everything; they go the same way. */
  routes?: readonly Json[];
  /** Further fields of the connection manager. */
  manager?: Json;
}>;

/** An HTTP listener on a loopback port. */
export function httpListener(options: HttpListenerOptions): Json {
  const { name, port, cluster, tls, filters = [] } = options;
  const action =
    cluster === undefined
      ? { direct_response: { status: 200, body: { inline_string: 'hello' } } }
      : { route: { cluster, timeout: '5s' } };
  const routes = (options.routes ?? []).map((route) => ({ ...route, ...action }));
  const manager: Json = {
    '@type': type('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: name,
    ...options.manager,
    route_config: {
      virtual_hosts: [
        { name: 'all', domains: ['*'], routes: [...routes, { match: { prefix: '/' }, ...action }] },
      ],
    },
    http_filters: [
      ...filters,
      {
        name: 'envoy.filters.http.router',
        typed_config: { '@type': type('envoy.extensions.filters.http.router.v3.Router') },
      },
    ],
  };
  return listener(name, port, tls, [
    { name: 'envoy.filters.network.http_connection_manager', typed_config: manager },
  ]);
}

export type TcpListenerOptions = Readonly<{
  name: string;
  port: number;
  cluster: string;
  tls?: TlsOptions;
  filters?: readonly Json[];
}>;

/** A TCP listener on a loopback port. */
export function tcpListener({ name, port, cluster, tls, filters = [] }: TcpListenerOptions): Json {
  return listener(name, port, tls, [
    ...filters,
    {
      name: 'envoy.filters.network.tcp_proxy',
      typed_config: {
        '@type': type('envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy'),
        stat_prefix: name,
        cluster,
      },
    },
  ]);
}

function listener(name: string, port: number, tls: TlsOptions | undefined, filters: readonly Json[]): Json {
  return {
    name,
    stat_prefix: name,
    address: address(port),
    filter_chains: [{ ...(tls === undefined ? {} : { transport_socket: downstreamTls(tls) }), filters }],
  };
}

/** A whole bootstrap, with the admin interface on `adminPort`. */
export function bootstrapOf(config: EnvoyConfig, adminPort: number, node: Json = {}): Json {
  return {
    node: { id: 'test-envoy', cluster: 'test', ...node },
    admin: { address: address(adminPort) },
    static_resources: config,
  };
}
