import type { Config } from '../config/config.ts';
import { type Json, seconds, typed } from './json.ts';

/** Envoy waits this much longer than a Check may take, so that the sidecar's own answer always comes first. */
const timeoutMarginMs = 100;

/**
 * The ext_authz HTTP filter. A failed call is a denial, never a pass, and is told from a denial by its status; of a body
 * Envoy sends no more than the sidecar parses.
 */
export function httpAuthzFilter(config: Config, cluster: string): Json {
  const { parse, maxBytes } = config.extAuthz.body;
  return {
    name: 'envoy.filters.http.ext_authz',
    typed_config: typed('envoy.extensions.filters.http.ext_authz.v3.ExtAuthz', {
      stat_prefix: 'svidecar',
      ...authzService(config, cluster),
      status_on_error: { code: 'ServiceUnavailable' },
      ...(parse && maxBytes > 0
        ? {
            with_request_body: {
              max_request_bytes: maxBytes,
              allow_partial_message: true,
              pack_as_bytes: true,
            },
          }
        : {}),
    }),
  };
}

/** The ext_authz network filter: one Check for each connection, at its first byte. */
export function tcpAuthzFilter(config: Config, cluster: string): Json {
  return {
    name: 'envoy.filters.network.ext_authz',
    typed_config: typed('envoy.extensions.filters.network.ext_authz.v3.ExtAuthz', {
      stat_prefix: 'svidecar',
      ...authzService(config, cluster),
    }),
  };
}

function authzService(config: Config, cluster: string): Json {
  return {
    transport_api_version: 'V3',
    grpc_service: {
      envoy_grpc: { cluster_name: cluster },
      timeout: seconds(config.policy.timeoutMs + timeoutMarginMs),
    },
    failure_mode_allow: false,
    include_peer_certificate: true,
  };
}
