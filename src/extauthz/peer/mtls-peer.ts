import { AppError } from '../../runtime/errors.ts';
import type { Certificate } from '../../spiffe/certificate.ts';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import { refuse } from '../reason.ts';
import { type PeerResult, type PeerSource, peerOf, spiffeIdIn } from './peer.ts';
import {
  createCertificateVerifier,
  readPeerCertificates,
  type VerifyCertificate,
} from './peer-certificate.ts';
import { parseXfcc } from './xfcc.ts';

export type MtlsPeerOptions = Readonly<{
  verifyCertificate: VerifyCertificate;
  /** How many verified certificates are remembered; each holds its PEM text. */
  maxCachedCertificates?: number | undefined;
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

/**
 * The peer from `source.principal` and, by `verifyCertificate`, from `source.certificate`: the leaf is verified against
 * the live bundle of its own trust domain and must carry the principal's SPIFFE ID. A principal that is no SPIFFE ID
 * counts as none. Where nothing that is known leads from the leaf to an authority, a path may lead through the chain of
 * x-forwarded-client-cert, if that is of the same leaf; as every path ends in an authority, the header need not be
 * trusted for that.
 */
export function createMtlsPeerSource(options: MtlsPeerOptions): PeerSource {
  const { verifyCertificate } = options;
  const verify = createCertificateVerifier(options.now, options.maxCachedCertificates);

  return ({ attributes, headers }, snapshot): PeerResult | undefined => {
    const source = attributes?.source;
    const principal = spiffeIdIn(source?.principal);
    if (principal === undefined) return undefined;
    if (verifyCertificate === 'off') return passed(principal, false);
    if (source?.certificate === undefined) {
      return verifyCertificate === 'when_present' ? passed(principal, false) : missingCertificate;
    }
    const header = headers[xfccHeader];
    const verified = verify(source.certificate, snapshot, {
      from: header,
      of: (leaf) => sentBehind(leaf, header),
    });
    if (verified.kind === 'deny') return verified;
    if (verified.spiffeId === principal) return passed(principal, true, verified.expiresAt);
    return refuse(
      'peer_mismatch',
      `principal is ${principal}, but the certificate is for ${verified.spiffeId}`,
    );
  };
}

const xfccHeader = 'x-forwarded-client-cert';

/** What the header says that the peer sent behind this leaf; of a header that cannot be read, nothing. */
function sentBehind(leaf: Certificate, header: string | undefined): readonly Certificate[] {
  if (header === undefined) return [];
  try {
    const { chain } = parseXfcc(header);
    const [first, ...rest] = chain === undefined ? [] : readPeerCertificates(chain);
    return first?.fingerprint === leaf.fingerprint ? rest : [];
  } catch (error) {
    if (error instanceof AppError) return [];
    throw error;
  }
}

const missingCertificate = refuse(
  'untrusted_certificate',
  'Envoy sent no certificate of the peer: set include_peer_certificate in its ext_authz filter',
);

function passed(id: SpiffeId, verified: boolean, provenUntil?: number): PeerResult {
  return Object.freeze({ kind: 'peer', peer: peerOf(id, 'mtls', verified), provenUntil });
}
