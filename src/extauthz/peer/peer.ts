import { AppError } from '../../runtime/errors.ts';
import {
  parseSpiffeId,
  pathOf,
  type SpiffeId,
  type TrustDomain,
  trustDomainOf,
} from '../../spiffe/spiffe-id.ts';
import type { TrustSnapshot } from '../../trust/snapshot.ts';
import type { CheckRequest } from '../check-attributes.ts';
import type { CredentialSpec } from '../credential-spec.ts';
import type { Refusal } from '../reason.ts';

/**
 * What proves the SPIFFE ID: the certificate of the connection, what a trusted proxy says of it, a JWT-SVID in a header,
 * or the JWT of another issuer that a bridge maps to it.
 */
export type PeerVia = 'mtls' | 'xfcc' | 'jwt_svid' | 'bridge';

/** Who made the request, as far as anything proves it. */
export type Peer =
  | Readonly<{
      id: SpiffeId;
      trustDomain: TrustDomain;
      /** With its leading slash; empty for the ID of a trust domain. */
      path: string;
      via: PeerVia;
      /** True when its certificate or token was verified here, against the live bundles or the issuer's keys. */
      verified: boolean;
    }>
  | Readonly<{ id: undefined; via: 'none'; verified: false }>;

export type PeerResult =
  | Readonly<{
      kind: 'peer';
      peer: Peer;
      /** When the proof ends, in milliseconds since the epoch; undefined when none was looked at. */
      provenUntil?: number | undefined;
      /** What the request must not go on without, in place of the proof that it came with. */
      exchange?: CredentialSpec | undefined;
    }>
  | Refusal;

/**
 * One way of learning the peer. Undefined means that the Check has nothing of this kind, and the next source is asked;
 * a refusal is final, so a failed proof is never made good by another one.
 */
export type PeerSource = (
  request: CheckRequest,
  snapshot: TrustSnapshot,
  signal: AbortSignal,
) => PeerResult | undefined | Promise<PeerResult | undefined>;

export const noPeer: Peer = Object.freeze({ id: undefined, via: 'none', verified: false });
const unknownPeer: PeerResult = Object.freeze({ kind: 'peer', peer: noPeer });

/** Asks the sources in order; the first that applies decides. Without any, the peer has no identity. */
export async function resolvePeer(
  sources: readonly PeerSource[],
  request: CheckRequest,
  snapshot: TrustSnapshot,
  signal: AbortSignal,
): Promise<PeerResult> {
  for (const source of sources) {
    const result = await source(request, snapshot, signal);
    if (result !== undefined) return result;
  }
  return unknownPeer;
}

export function peerOf(id: SpiffeId, via: PeerVia, verified: boolean): Peer {
  return Object.freeze({ id, trustDomain: trustDomainOf(id), path: pathOf(id), via, verified });
}

/** The SPIFFE ID in `text`, or undefined when it is none: a DNS name or subject that Envoy fell back to. */
export function spiffeIdIn(text: string | undefined): SpiffeId | undefined {
  if (text === undefined || !text.startsWith('spiffe://')) return undefined;
  try {
    return parseSpiffeId(text);
  } catch (error) {
    if (error instanceof AppError) return undefined;
    throw error;
  }
}
