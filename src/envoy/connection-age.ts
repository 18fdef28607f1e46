import type { Config } from '../config/config.ts';
import { type Json, seconds } from './json.ts';

const longestMs = 600_000;

/**
 * Has Envoy end an HTTP connection while the certificates of its handshake are still good. Every Check brings the client's
 * certificate as it was in the handshake, so on a connection that outlives it all requests would be denied. An SVID is
 * renewed at half of its life; a quarter leaves room for one that is late. The client's end goes first, because it can
 * move to a new connection without losing a request.
 */
export function connectionAge({ identity }: Config, side: 'client' | 'server'): Json {
  const serverMs = Math.min(longestMs, (identity.dev?.svidTtlMs ?? Number.POSITIVE_INFINITY) / 4);
  const ms = side === 'server' ? serverMs : Math.floor((serverMs * 3) / 4);
  return { common_http_protocol_options: { max_connection_duration: seconds(ms) } };
}
