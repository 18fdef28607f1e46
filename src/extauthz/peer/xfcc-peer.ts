import { AppError } from '../../runtime/errors.ts';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { CheckRequest } from '../check-attributes.ts';
import { refuse } from '../reason.ts';
import type { PeerResult, PeerSource } from './peer.ts';
import { peerOf, spiffeIdIn } from './peer.ts';
import {
  createCertificateVerifier,
  readPeerCertificates,
  type VerifyCertificate,
} from './peer-certificate.ts';
import { parseXfcc, type Xfcc } from './xfcc.ts';

export type XfccPeerOptions = Readonly<{
  verifyCertificate: VerifyCertificate;
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

/**
 * The peer from x-forwarded-client-cert, for an Envoy behind a proxy that ends the TLS of peers: the one URI of the last
 * element. Its certificate, when the element has one, is verified as that of a connection is. A connection with a
 * SPIFFE ID but without the header is the proxy's own, and is refused. The header must come from an Envoy that
 * sanitizes it.
 */
export function createXfccPeerSource({ verifyCertificate, now }: XfccPeerOptions): PeerSource {
  const verify = createCertificateVerifier(now);
  return ({ attributes, headers }, snapshot): PeerResult | undefined => {
    const header = headers['x-forwarded-client-cert'];
    if (header === undefined) {
      return spiffeIdIn(attributes?.source?.principal) === undefined ? undefined : noHeader;
    }
    let xfcc: Xfcc;
    try {
      xfcc = parseXfcc(header);
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      return refuse('malformed_request', error.message);
    }
    const [uri, ...more] = xfcc.uris;
    const id = more.length === 0 ? spiffeIdIn(uri) : undefined;
    if (id === undefined) return noSingleId;
    // The chain starts with the leaf, too; with both, the leaf is that of `Cert`.
    const certificate = xfcc.cert ?? xfcc.chain;
    if (verifyCertificate === 'off') return passed(id, false);
    if (!xfcc.earlierCerts.every(fitsHeader)) return madeUp;
    if (certificate === undefined) {
      return verifyCertificate === 'when_present' ? passed(id, false) : missingCertificate;
    }
    const verified = verify(certificate, snapshot, { from: xfcc.chain, of: () => chainOf(xfcc) });
    if (verified.kind === 'deny') return verified;
    if (verified.spiffeId === id) return passed(id, true, verified.expiresAt);
    return refuse(
      'peer_mismatch',
      `x-forwarded-client-cert is about ${id}, but its certificate is for ${verified.spiffeId}`,
    );
  };

  function passed(id: Parameters<typeof peerOf>[0], verified: boolean, provenUntil?: number): PeerResult {
    return Object.freeze({ kind: 'peer', peer: peerOf(id, 'xfcc', verified), provenUntil });
  }
}

/**
 * Whom the last element of x-forwarded-client-cert names, proven or not; nobody without the header. Throws an AppError
 * for one that does not follow its grammar.
 */
export function namedByXfcc({ headers }: CheckRequest): readonly SpiffeId[] {
  const header = headers['x-forwarded-client-cert'];
  if (header === undefined) return [];
  return parseXfcc(header)
    .uris.map(spiffeIdIn)
    .filter((id) => id !== undefined);
}

/**
 * Envoy writes the names of a certificate into the header as they are. A comma in one begins what looks like another
 * element, so that who may have any name certified could say to be anybody.
 */
function fitsHeader(certificate: string): boolean {
  try {
    const [leaf] = readPeerCertificates(certificate);
    return leaf !== undefined && ![...leaf.uriSans, ...leaf.dnsSans].some((name) => /[,;"]/.test(name));
  } catch (error) {
    if (error instanceof AppError) return false;
    throw error;
  }
}

function chainOf({ chain }: Xfcc): ReturnType<typeof readPeerCertificates> {
  try {
    return chain === undefined ? [] : readPeerCertificates(chain);
  } catch (error) {
    if (error instanceof AppError) return [];
    throw error;
  }
}

const noHeader = refuse(
  'no_peer_identity',
  'without x-forwarded-client-cert the connection is that of the proxy, not of the peer: have the proxy set it, or turn ' +
    'ext_authz.peer.trust_xfcc off',
);
const noSingleId = refuse(
  'no_peer_identity',
  'the last element of x-forwarded-client-cert does not have exactly one URI that is a SPIFFE ID: set uri in ' +
    'set_current_client_cert_details of the proxy',
);
const madeUp = refuse(
  'untrusted_certificate',
  'x-forwarded-client-cert has an element whose certificate cannot be read or has a name with a comma, a semicolon or a ' +
    'quote in it: what follows may be made up by its owner',
);
const missingCertificate = refuse(
  'untrusted_certificate',
  'x-forwarded-client-cert has no certificate: set cert or chain in set_current_client_cert_details of the proxy',
);
