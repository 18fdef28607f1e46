import { encodeCertificatesPem } from '../spiffe/certificate.ts';
import type { JwtSvid, JwtVerification } from '../spiffe/jwt-svid.ts';
import { type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Verification } from '../spiffe/verify.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import { formatTime } from './time.ts';

/** Where a bundle came from and how fetching it went; times in milliseconds since the epoch. */
export type BundleInfo = Readonly<{
  source: 'workload_api' | 'endpoint' | 'bootstrap' | 'dev' | 'files';
  sequence?: bigint | undefined;
  refreshHintS?: number | undefined;
  fetchedAt?: number | undefined;
  lastError?: string | undefined;
}>;

/** One X509-SVID without its key; the certificate is the leaf. */
export function x509Json({ spiffeId, chain: [leaf], hint }: X509Svid) {
  return {
    spiffe_id: spiffeId,
    trust_domain: trustDomainOf(spiffeId),
    serial: leaf.serial,
    not_before: formatTime(leaf.notBefore),
    expires_at: formatTime(leaf.notAfter),
    ...hintJson(hint),
    certificate: encodeCertificatesPem([leaf]).toString(),
  };
}

/** One JWT-SVID with its token: a credential. */
export function jwtJson({ spiffeId, token, expiresAt, claims }: JwtSvid, audience: string) {
  return { spiffe_id: spiffeId, audience, jwt: token, expires_at: formatTime(expiresAt), claims };
}

/** One of the identities held. */
export function identityJson({ spiffeId, chain: [leaf], hint }: X509Svid, rotatedAt: number) {
  return {
    spiffe_id: spiffeId,
    ...hintJson(hint),
    expires_at: formatTime(leaf.notAfter),
    rotated_at: formatTime(rotatedAt),
  };
}

/** Everything that is trusted of one domain, and since when. */
export function bundleJson(
  snapshot: TrustSnapshot,
  trustDomain: TrustDomain,
  info: BundleInfo & Readonly<{ fetchedAt: number }>,
) {
  const { sequence, refreshHintS, source, fetchedAt, lastError } = info;
  const x509 = snapshot.bundles.get(trustDomain)?.authorities ?? [];
  const jwt = snapshot.jwtBundles.get(trustDomain)?.authorities ?? [];
  return {
    x509_authorities: x509.map((authority) => encodeCertificatesPem([authority]).toString()),
    jwt_authorities: jwt.map(({ jwk }) => jwk),
    ...(sequence === undefined ? {} : { sequence: sequenceJson(sequence) }),
    ...(refreshHintS === undefined ? {} : { refresh_hint_s: refreshHintS }),
    source,
    fetched_at: formatTime(fetchedAt),
    ...(lastError === undefined ? {} : { last_error: lastError }),
  };
}

/** A bundle in numbers; nothing at all is held when it is not `held`. */
export function bundleSummaryJson({ bundles, jwtBundles }: TrustSnapshot, trustDomain: TrustDomain) {
  return {
    trust_domain: trustDomain,
    held: bundles.has(trustDomain) || jwtBundles.has(trustDomain),
    x509_authorities: bundles.get(trustDomain)?.authorities.length ?? 0,
    jwt_authorities: jwtBundles.get(trustDomain)?.authorities.length ?? 0,
  };
}

export function x509VerificationJson(verification: X509Verification) {
  if (!verification.valid) return refusalJson(verification);
  const { spiffeId, trustDomain, expiresAt } = verification;
  return { valid: true, spiffe_id: spiffeId, trust_domain: trustDomain, expires_at: formatTime(expiresAt) };
}

export function jwtVerificationJson(verification: JwtVerification) {
  if (!verification.valid) return refusalJson(verification);
  const { spiffeId, claims } = verification;
  return { valid: true, spiffe_id: spiffeId, claims };
}

function refusalJson({ reason, message }: Readonly<{ reason: string; message: string }>) {
  return { valid: false, reason, message };
}

/** A JSON number, or a string where readers would round a number. */
function sequenceJson(sequence: bigint): number | string {
  return sequence <= Number.MAX_SAFE_INTEGER ? Number(sequence) : String(sequence);
}

function hintJson(hint: string) {
  return hint === '' ? {} : { hint };
}
