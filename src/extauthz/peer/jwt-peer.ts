import { verifyJwtSvid } from '../../spiffe/jwt-svid.ts';
import { refuse } from '../reason.ts';
import { findToken } from './bearer.ts';
import { type PeerSource, peerOf } from './peer.ts';

export type JwtPeerOptions = Readonly<{
  /** In lower case. */
  header: string;
  /** One of them must be the token's; never empty. */
  audiences: readonly string[];
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

/**
 * The peer from a JWT-SVID in a header, for requests that come without a SPIFFE ID of the connection. A token that does
 * not hold is a refusal, never "no peer": who presents a bad proof is not let in as a stranger.
 */
export function createJwtPeerSource({ header, audiences, now }: JwtPeerOptions): PeerSource {
  return async ({ headers }, snapshot) => {
    const found = findToken(headers, header);
    if (found === undefined) return undefined;
    const result = await verifyJwtSvid(found.token, audiences, snapshot.jwtBundles, now());
    if (result.valid) {
      return { kind: 'peer', peer: peerOf(result.spiffeId, 'jwt_svid', true), provenUntil: result.expiresAt };
    }
    return refuse('jwt_svid_invalid', `JWT-SVID in ${header}: ${result.reason}: ${result.message}`);
  };
}
