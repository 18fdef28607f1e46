import { AppError } from '../runtime/errors.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { parsePemCertificates } from '../spiffe/certificate.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../spiffe/verify.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import { createLruCache } from './lru.ts';
import { percentDecode } from './path-and-query.ts';
import { type PeerResult, type PeerSource, peerOf, spiffeIdIn } from './peer.ts';
import { type Refusal, refuse } from './reason.ts';

export type VerifyCertificate = 'required' | 'when_present' | 'off';

export type MtlsPeerOptions = Readonly<{
  verifyCertificate: VerifyCertificate;
  /** How many verified certificates are remembered; each holds its PEM text. */
  maxCachedCertificates?: number | undefined;
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

/** A certificate that was verified under one snapshot: the peer it proves, and until when without another look. */
type Verified = Readonly<{ kind: 'verified'; spiffeId: SpiffeId; proven: PeerResult; expiresAt: number }>;

const maxChain = 10;

/**
 * The peer from `source.principal` and, by `verifyCertificate`, from `source.certificate`: the leaf is verified against
 * the live bundle of its own trust domain and must carry the principal's SPIFFE ID. A principal that is no SPIFFE ID
 * counts as none. A certificate is verified once per snapshot, and again when it has expired.
 */
export function createMtlsPeerSource(options: MtlsPeerOptions): PeerSource {
  const { verifyCertificate, now } = options;
  const cache = createLruCache<string, Verified>(options.maxCachedCertificates ?? 1_000);
  let version = -1;

  function verify(text: string, snapshot: TrustSnapshot): Verified | Refusal {
    if (snapshot.version !== version) {
      cache.clear();
      version = snapshot.version;
    }
    const at = now();
    const cached = cache.get(text);
    if (cached !== undefined && at < cached.expiresAt) return cached;
    const result = verifyCertificateText(text, snapshot, at);
    // Refusals are not kept: some pass with time, and none of them is on the way of a request that is let through.
    if (result.kind === 'verified') cache.set(text, result);
    return result;
  }

  return (request, snapshot): PeerResult | undefined => {
    const source = request.attributes?.source;
    const principal = spiffeIdIn(source?.principal);
    if (principal === undefined) return undefined;
    if (verifyCertificate === 'off') return passed(principal, false);
    if (source?.certificate === undefined) {
      return verifyCertificate === 'when_present' ? passed(principal, false) : missingCertificate;
    }
    const verified = verify(source.certificate, snapshot);
    if (verified.kind === 'deny') return verified;
    if (verified.spiffeId === principal) return verified.proven;
    return refuse(
      'peer_mismatch',
      `principal is ${principal}, but the certificate is for ${verified.spiffeId}`,
    );
  };
}

const missingCertificate = refuse(
  'untrusted_certificate',
  'Envoy sent no certificate of the peer: set include_peer_certificate in its ext_authz filter',
);

function passed(id: SpiffeId, verified: boolean): PeerResult {
  return Object.freeze({ kind: 'peer', peer: peerOf(id, 'mtls', verified) });
}

function verifyCertificateText(text: string, snapshot: TrustSnapshot, at: number): Verified | Refusal {
  let chain: readonly Certificate[];
  try {
    chain = parsePemCertificates(percentDecode(text, 'certificate'), maxChain);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return refuse('untrusted_certificate', `certificate of the peer cannot be read: ${error.message}`);
  }
  const [leaf] = chain;
  if (leaf === undefined) return refuse('untrusted_certificate', 'certificate of the peer is empty');
  const result = verifyX509Svid(chain, snapshot.bundles, at, snapshot.intermediates);
  if (result.valid) {
    const { spiffeId, expiresAt } = result;
    return { kind: 'verified', spiffeId, proven: passed(spiffeId, true), expiresAt };
  }
  if (result.reason === 'untrusted_chain')
    return refuse('untrusted_chain', untrustedChain(leaf, result.message));
  const remedy = result.reason === 'expired' ? outlived : '';
  return refuse('untrusted_certificate', `certificate of the peer: ${result.message}${remedy}`);
}

// On a connection Envoy tells of the certificate that the handshake had, for as long as the connection lasts.
const outlived = '; where connections may outlive certificates, set max_connection_duration in both Envoys';

// Envoy hands on the leaf alone, so an intermediate that only the peer holds cannot be found here.
function untrustedChain(leaf: Certificate, message: string): string {
  return (
    `certificate of the peer: ${message}; its issuer "${leaf.issuer.slice(0, 200)}" is no authority of its trust domain ` +
    'and in none of our own SVID chains so far: issue the SVID from an authority in the bundle, or from an intermediate that ' +
    'this sidecar shares, or set ext_authz.peer.verify_certificate to off and rely on the handshake of Envoy'
  );
}
