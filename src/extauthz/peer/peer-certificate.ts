import { createHash } from 'node:crypto';
import { AppError } from '../../runtime/errors.ts';
import { type Certificate, parsePemCertificates } from '../../spiffe/certificate.ts';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../../spiffe/verify.ts';
import type { TrustSnapshot } from '../../trust/snapshot.ts';
import { createLruCache } from '../lru.ts';
import { percentDecode } from '../path-and-query.ts';
import { type Refusal, refuse } from '../reason.ts';

export type VerifyCertificate = 'required' | 'when_present' | 'off';

/** A certificate that was verified under one snapshot: whom it proves, and until when without another look. */
export type VerifiedCertificate = Readonly<{ kind: 'verified'; spiffeId: SpiffeId; expiresAt: number }>;

export type CertificateVerifier = (
  /** URL-encoded PEM, leaf first. */
  text: string,
  snapshot: TrustSnapshot,
  /** Certificates that a path may lead through, asked for only when none is found without them, and what they are read from. */
  candidates?: Readonly<{ from: string | undefined; of(leaf: Certificate): readonly Certificate[] }>,
) => VerifiedCertificate | Refusal;

const maxChain = 10;
/** A refusal is looked at again after so long: some pass with time. */
const refusedMs = 1_000;
const maxRefused = 1_000;

/**
 * Verifies certificates of peers against the live bundles. One is verified once per snapshot, and again when it or an
 * issuer of it has expired; one that is refused at most once a second, because that may take a search through a large CRL.
 */
export function createCertificateVerifier(
  now: () => number,
  maxCachedCertificates = 1_000,
): CertificateVerifier {
  const cache = createLruCache<string, VerifiedCertificate>(maxCachedCertificates);
  const refused = createLruCache<string, Readonly<{ refusal: Refusal; until: number }>>(maxRefused);
  let version = -1;
  return (text, snapshot, candidates) => {
    if (snapshot.version !== version) {
      cache.clear();
      refused.clear();
      version = snapshot.version;
    }
    const at = now();
    const cached = cache.get(text);
    if (cached !== undefined && at < cached.expiresAt) return cached;
    // Digests, because whoever is refused chooses what they are of.
    const key = digestOf(text, candidates?.from);
    const before = refused.get(key);
    if (before !== undefined && at < before.until && at >= before.until - refusedMs) return before.refusal;
    const result = verify(text, snapshot, at, candidates?.of);
    if (result.kind === 'verified') cache.set(text, result);
    else refused.set(key, { refusal: result, until: at + refusedMs });
    return result;
  };
}

function digestOf(text: string, candidates: string | undefined): string {
  return createHash('sha256')
    .update(JSON.stringify([text, candidates ?? null]))
    .digest('base64');
}

/** The certificates in URL-encoded PEM, leaf first; throws an AppError when they cannot be read. */
export function readPeerCertificates(text: string): readonly Certificate[] {
  return parsePemCertificates(percentDecode(text, 'certificate'), maxChain);
}

function verify(
  text: string,
  snapshot: TrustSnapshot,
  at: number,
  candidates: ((leaf: Certificate) => readonly Certificate[]) | undefined,
): VerifiedCertificate | Refusal {
  let chain: readonly Certificate[];
  try {
    chain = readPeerCertificates(text);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return refuse('untrusted_certificate', `certificate of the peer cannot be read: ${error.message}`);
  }
  const [leaf] = chain;
  if (leaf === undefined) return refuse('untrusted_certificate', 'certificate of the peer is empty');
  let result = verifyX509Svid(chain, snapshot.bundles, at, snapshot.intermediates);
  if (!result.valid && result.reason === 'untrusted_chain') {
    const more = candidates?.(leaf) ?? [];
    if (more.length > 0) {
      result = verifyX509Svid(chain, snapshot.bundles, at, [...more, ...snapshot.intermediates]);
    }
  }
  if (result.valid) return { kind: 'verified', spiffeId: result.spiffeId, expiresAt: result.expiresAt };
  if (result.reason === 'untrusted_chain')
    return refuse('untrusted_chain', untrustedChain(leaf, result.message));
  const remedy = result.reason === 'expired' ? outlived : '';
  return refuse('untrusted_certificate', `certificate of the peer: ${result.message}${remedy}`);
}

// On a connection Envoy tells of the certificate that the handshake had, for as long as the connection lasts.
const outlived = '; where connections may outlive certificates, set max_connection_duration in both Envoys';

// In source.certificate Envoy hands on the leaf alone.
function untrustedChain(leaf: Certificate, message: string): string {
  return (
    `certificate of the peer: ${message}; its issuer "${leaf.issuer.slice(0, 200)}" is no authority of its trust domain ` +
    'and neither in our own SVID chains so far nor in a chain that Envoy sent: have Envoy send it (SANITIZE_SET with chain, as ' +
    '`svidecar bootstrap` writes it), issue the SVID from an authority in the bundle, or set ' +
    'ext_authz.peer.verify_certificate to off and rely on the handshake of Envoy'
  );
}
