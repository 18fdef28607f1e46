import type { X509Bundle, X509BundleSet } from './bundle.ts';
import type { Certificate } from './certificate.ts';
import { isRevoked } from './crl.ts';
import { permitsUriHost } from './name-constraints.ts';
import { isStronglySigned } from './signature-algorithm.ts';
import { idOfTrustDomain, type SpiffeId, type TrustDomain, trustDomainOf } from './spiffe-id.ts';
import { checkLeaf, refuse, type X509Refusal } from './x509-leaf.ts';
import { maxChainLength } from './x509-svid.ts';

/** What a verification came to. `expiresAt`: when the first certificate of the path ends, in ms since the epoch. */
export type X509Verification =
  | Readonly<{ valid: true; spiffeId: SpiffeId; trustDomain: TrustDomain; expiresAt: number }>
  | X509Refusal;

/** Signature checks spent on one chain: more than any honest one needs, few enough that a crafted one costs little. */
const maxSignatureChecks = 64;

/**
 * Verifies a peer's X509-SVID (X509-SVID §5): the leaf's own rules, then RFC 5280 path validation at `now`
 * (milliseconds) up to an authority in the bundle of the leaf's own trust domain, and of no other. `chain` is leaf
 * first; a path may also lead through `intermediates`, in any order. Every refusal is a value; never throws. Pure, so a
 * result may be cached by fingerprints and bundle set until `expiresAt`.
 */
export function verifyX509Svid(
  chain: readonly Certificate[],
  bundles: X509BundleSet,
  now: number,
  intermediates: readonly Certificate[] = [],
): X509Verification {
  const [leaf, ...sent] = chain;
  if (leaf === undefined) return refuse('malformed', 'there is no certificate');
  if (chain.length > maxChainLength)
    return refuse('malformed', `chain has more than ${maxChainLength} certificates`);
  const spiffeId = checkLeaf(leaf, now);
  if (typeof spiffeId !== 'string') return spiffeId;
  const trustDomain = trustDomainOf(spiffeId);
  const bundle = bundles.get(trustDomain);
  if (bundle === undefined) {
    return refuse('unknown_trust_domain', `no X.509 bundle of trust domain ${trustDomain} is held`);
  }
  if (leaf.unknownCriticalExtensions.length > 0) return refuse('untrusted_chain', unknownExtension(leaf));
  const search = findPath(leaf, [...sent, ...intermediates], bundle, now);
  if (search.path === undefined) return refuse('untrusted_chain', search.message);
  return {
    valid: true,
    spiffeId,
    trustDomain,
    expiresAt: Math.min(...search.path.map((certificate) => certificate.notAfter)),
  };
}

type Search = Readonly<{ path: readonly Certificate[] } | { path: undefined; message: string }>;

/** Depth first from the leaf upwards; authorities before intermediates, so the usual path is found at once. */
function findPath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  bundle: X509Bundle,
  now: number,
): Search {
  let checksLeft = maxSignatureChecks;
  let message = '';

  function extend(path: readonly Certificate[]): readonly Certificate[] | undefined {
    const top = path.at(-1) ?? leaf;
    let issuerSeen = false;
    for (const [issuers, final] of [
      [bundle.authorities, true],
      [intermediates, false],
    ] as const) {
      for (const issuer of issuers) {
        if (!top.issuerDer.equals(issuer.subjectDer) || isOnPath(path, issuer)) continue;
        const fault = checkIssuer(issuer, path, bundle.trustDomain, now);
        // Authorities of one name differ by their key identifiers, which checkIssued compares without cost.
        if (fault === undefined && !top.native.checkIssued(issuer.native)) continue;
        issuerSeen = true;
        if (fault !== undefined) {
          message ||= fault;
          continue;
        }
        if (checksLeft-- <= 0) {
          message = 'chain needs too many signature checks';
          return undefined;
        }
        if (!isSignedBy(top, issuer)) {
          message ||= `signature of ${label(top)} does not verify with the key of ${label(issuer)}`;
          continue;
        }
        if (isRevoked(top, issuer, bundle.crls)) {
          message ||= `${label(top)} is revoked`;
          continue;
        }
        const longer = [...path, issuer];
        const found = final ? longer : extend(longer);
        if (found !== undefined) return found;
      }
    }
    if (!issuerSeen) {
      message ||=
        `issuer of ${label(top)}, "${shorten(top.issuer)}", is neither an authority of trust domain ${bundle.trustDomain} ` +
        'nor a known intermediate: send the intermediates along or add the issuer to the bundle';
    }
    return undefined;
  }

  const path = extend([leaf]);
  return path === undefined ? { path, message } : { path };
}

/** RFC 5280 §6.1 for one issuer of the last certificate in `path`, all but the signature. The fault, or undefined. */
function checkIssuer(
  issuer: Certificate,
  path: readonly Certificate[],
  trustDomain: TrustDomain,
  now: number,
): string | undefined {
  if (issuer.notAfter < now) return `${label(issuer)} has expired`;
  if (issuer.notBefore > now) return `${label(issuer)} is not valid yet`;
  if (!issuer.isCa) return `${label(issuer)} is no signing certificate`;
  if (issuer.keyUsage?.has('keyCertSign') !== true) return `${label(issuer)} lacks the key usage keyCertSign`;
  if (issuer.unknownCriticalExtensions.length > 0) return unknownExtension(issuer);
  // §6.1.4 l, m: certificates whose subject is their issuer do not count, nor does the leaf.
  const below = path.slice(1).filter((certificate) => !isSelfIssued(certificate)).length;
  if (issuer.pathLength !== undefined && below > issuer.pathLength)
    return `${label(issuer)} allows no path this long`;
  // X509-SVID §3.2, §4: a signing certificate's ID has no path and stands for the trust domain that it signs for.
  const foreign = issuer.uriSans.find(
    (uri) => uri.startsWith('spiffe:') && uri !== idOfTrustDomain(trustDomain),
  );
  if (foreign !== undefined) return `${label(issuer)} has a SPIFFE ID other than that of the trust domain`;
  return checkNames(issuer, path, trustDomain);
}

/** RFC 5280 §6.1.3 b, c: every certificate below, but for self-issued intermediates, keeps to the constraints. */
function checkNames(
  issuer: Certificate,
  path: readonly Certificate[],
  trustDomain: TrustDomain,
): string | undefined {
  const constraints = issuer.nameConstraints;
  if (constraints === undefined) return undefined;
  for (const [index, certificate] of path.entries()) {
    if (index > 0 && isSelfIssued(certificate)) continue;
    const unsupported = [...constraints.otherTypes].some((type) =>
      type === directoryName ? certificate.subject !== '' : certificate.sanTypes.has(type),
    );
    if (unsupported) return `${label(issuer)} constrains a kind of name that cannot be checked`;
    // A leaf's only URI is its SPIFFE ID, and a signing certificate's ID was held against the trust domain above.
    if (
      certificate.uriSans.some(
        (uri) => !uri.startsWith('spiffe://') || !permitsUriHost(constraints, trustDomain),
      )
    ) {
      return `${label(issuer)} may not sign for trust domain ${trustDomain} (name constraints)`;
    }
  }
  return undefined;
}

const directoryName = 4;

function isSignedBy(certificate: Certificate, issuer: Certificate): boolean {
  try {
    return isStronglySigned(certificate.der) && certificate.native.verify(issuer.publicKey);
  } catch {
    // Malformed parameters, or OpenSSL when the algorithm does not fit the key.
    return false;
  }
}

function isSelfIssued({ subjectDer, issuerDer }: Certificate): boolean {
  return subjectDer.equals(issuerDer);
}

function isOnPath(path: readonly Certificate[], certificate: Certificate): boolean {
  return path.some(({ fingerprint }) => fingerprint === certificate.fingerprint);
}

function unknownExtension(certificate: Certificate): string {
  return `${label(certificate)} has a critical extension that is unknown: ${shorten(certificate.unknownCriticalExtensions[0] ?? '')}`;
}

function label({ subject, serial }: Certificate): string {
  return subject === '' ? `certificate ${shorten(serial)}` : `certificate "${shorten(subject)}"`;
}

/** A peer chooses the names in its certificates; messages stay a line long. */
function shorten(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 200)}…`;
}
