import type { PeerConfig } from '../config/peer-section.ts';
import { type Json, seconds, typed } from './json.ts';

/** A pattern of SPIFFE IDs, as the config has it. */
export type PeerPattern = NonNullable<PeerConfig['allowedIdentities']>[number];

/** Whom a matcher is made for: the literal pieces of a pattern, between its stars. */
export type NamedPeers = Pick<PeerPattern, 'text' | 'pieces'>;

export type TlsOptions = Readonly<{
  /** The cluster that SDS is asked over. */
  cluster: string;
  protocol: 'sotw' | 'delta';
  /** Secret names. */
  svidName: string;
  bundleName: string;
  /** Who the peer may be; empty: whoever the bundle vouches for. */
  peers: readonly NamedPeers[];
  http: boolean;
}>;

const tlsPackage = 'envoy.extensions.transport_sockets.tls.v3';

/** TLS of a listener: our SVID, TLS 1.3 only, and a peer that must show an SVID of its own. */
export function downstreamTls(options: TlsOptions): Json {
  return transportSocket('DownstreamTlsContext', {
    require_client_certificate: true,
    common_tls_context: commonTlsContext(options),
  });
}

/**
 * TLS of a cluster. The maximum has to be given: Envoy's upstream side stops at TLS 1.2 otherwise, and a server that
 * wants 1.3 then fails the handshake.
 */
export function upstreamTls(options: TlsOptions): Json {
  return transportSocket('UpstreamTlsContext', { common_tls_context: commonTlsContext(options) });
}

/** The matcher of a URI SAN that accepts exactly the IDs of the pattern. */
function sanMatcher({ text, pieces }: NamedPeers): Json {
  const [first, ...others] = pieces;
  if (others.length === 0) return { san_type: 'URI', matcher: { exact: text } };
  if (others.length === 1 && others[0] === '') return { san_type: 'URI', matcher: { prefix: first } };
  // RE2, which Envoy matches against the whole name; a SPIFFE ID has no line breaks.
  return { san_type: 'URI', matcher: { safe_regex: { regex: pieces.map(escapeRegex).join('.*') } } };
}

function escapeRegex(text: string): string {
  return text.replaceAll(/[.\\+*?()[\]{}|^$]/g, String.raw`\$&`);
}

function commonTlsContext(options: TlsOptions): Json {
  const { svidName, bundleName, peers, http } = options;
  return {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    ...(http ? { alpn_protocols: ['h2', 'http/1.1'] } : {}),
    tls_certificate_sds_secret_configs: [secretConfig(svidName, options)],
    // SDS brings the trust, and this side says who of the trusted it may be. The bundle resources never carry matchers,
    // because Envoy would accept either those or these.
    combined_validation_context: {
      default_validation_context:
        peers.length === 0 ? {} : { match_typed_subject_alt_names: peers.map(sanMatcher) },
      validation_context_sds_secret_config: secretConfig(bundleName, options),
    },
  };
}

function secretConfig(name: string, { cluster, protocol }: TlsOptions): Json {
  return {
    name,
    sds_config: {
      resource_api_version: 'V3',
      api_config_source: {
        api_type: protocol === 'delta' ? 'DELTA_GRPC' : 'GRPC',
        transport_api_version: 'V3',
        // The Node lists every extension of Envoy, some 100 kB that need not be told again with each request.
        set_node_on_first_message_only: true,
        grpc_services: [
          {
            envoy_grpc: {
              cluster_name: cluster,
              retry_policy: { retry_back_off: { base_interval: seconds(500), max_interval: seconds(5000) } },
            },
          },
        ],
      },
    },
  };
}

function transportSocket(context: string, fields: Json): Json {
  return { name: 'envoy.transport_sockets.tls', typed_config: typed(`${tlsPackage}.${context}`, fields) };
}
