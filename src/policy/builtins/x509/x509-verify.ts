import type { GoCertificate } from './x509-certificate.ts';
import { hasHost } from './x509-hostname.ts';
import { permitsNames } from './x509-permitted.ts';
import { isSignedWith } from './x509-signature.ts';

export type VerifyOptions = Readonly<{
  /** Nanoseconds since 1970. */
  nowNs: bigint;
  /** Empty: no host is asked for. */
  host: string;
  /** Go's numbers of extended key usages, one of which the chain must allow. */
  keyUsages: readonly number[];
}>;

const anyUsage = 0;
export const serverAuth = 1;

/** More attempts at a signature end the search, as in Go. */
const maxSignatureChecks = 100;
const anyPolicy = Buffer.from('551d2000', 'hex');
const certSign = 1 << 5;

type Search = { checks: number; readonly pool: Pool; readonly nowNs: bigint };
type Pool = Readonly<{ root: GoCertificate; intermediates: readonly GoCertificate[] }>;

/**
 * The first chain from the last certificate to the first, by way of those between, that is valid by the rules of Go's
 * Certificate.Verify; leaf first. Undefined when there is none, and where a chain needs what is not looked at here: explicit
 * policies and mappings of any policy.
 */
export function verifyChain(
  certificates: readonly GoCertificate[],
  { nowNs, host, keyUsages }: VerifyOptions,
): readonly GoCertificate[] | undefined {
  const [root, ...others] = certificates;
  const leaf = others.pop();
  if (root === undefined || leaf === undefined) return undefined;
  const search: Search = { checks: 0, pool: { root, intermediates: withoutRepeats(others) }, nowNs };
  if (!isFit(leaf, 'leaf', [], nowNs)) return undefined;
  if (host !== '' && !hasHost(leaf.fields.names, host)) return undefined;
  const chains = leaf.raw.equals(root.raw) ? [[leaf]] : chainsFrom([leaf], search);
  return chains.find(
    (chain) => hasPlainPolicies(chain) && allowsUsage(chain, keyUsages) && permitsNames(chain),
  );
}

function withoutRepeats(certificates: readonly GoCertificate[]): readonly GoCertificate[] {
  return [...new Map(certificates.map((one) => [one.raw.toString('latin1'), one])).values()];
}

function chainsFrom(chain: readonly GoCertificate[], search: Search): (readonly GoCertificate[])[] {
  const child = chain.at(-1);
  if (child === undefined) return [];
  const { root, intermediates } = search.pool;
  const candidates = [
    ...issuersOf(child, [root]).map((issuer) => ({ issuer, kind: 'root' as const })),
    ...issuersOf(child, intermediates).map((issuer) => ({ issuer, kind: 'intermediate' as const })),
  ];
  const found: (readonly GoCertificate[])[] = [];
  for (const { issuer, kind } of candidates) {
    search.checks++;
    if (search.checks > maxSignatureChecks) break;
    if (issuer.publicKey.json === null || isRepeated(issuer, chain)) continue;
    if (!isSignedBy(child, issuer) || !isFit(issuer, kind, chain, search.nowNs)) continue;
    const longer = [...chain, issuer];
    found.push(...(kind === 'root' ? [longer] : chainsFrom(longer, search)));
  }
  return found;
}

/** Of the right name; those come first whose key identifier is the named one, last those whose is another. */
function issuersOf(child: GoCertificate, pool: readonly GoCertificate[]): readonly GoCertificate[] {
  const wanted = child.fields.authorityKeyId ?? Buffer.of();
  const rank = ({ fields: { subjectKeyId = Buffer.of() } }: GoCertificate): number => {
    if (subjectKeyId.equals(wanted)) return 0;
    return subjectKeyId.length === 0 || wanted.length === 0 ? 1 : 2;
  };
  return pool
    .filter(({ rawSubject }) => rawSubject.equals(child.rawIssuer))
    .sort((one, other) => rank(one) - rank(other));
}

/** Cross-signed authorities would lead round in a circle. */
function isRepeated(candidate: GoCertificate, chain: readonly GoCertificate[]): boolean {
  const names = candidate.fields.namesValue;
  const twin = chain.filter(
    ({ rawSubject, rawSpki }) => rawSubject.equals(candidate.rawSubject) && rawSpki.equals(candidate.rawSpki),
  );
  return twin.some(({ fields: { namesValue } }) =>
    names === undefined || namesValue === undefined ? names === namesValue : names.equals(namesValue),
  );
}

function isSignedBy(child: GoCertificate, { version, fields, publicKey }: GoCertificate): boolean {
  const { basicConstraints, keyUsage } = fields;
  if (basicConstraints === undefined ? version === 3 : !basicConstraints.isCa) return false;
  if (keyUsage !== 0 && (keyUsage & certSign) === 0) return false;
  return isSignedWith(child.signatureAlgorithm, child.rawTbs, child.signature, publicKey.key);
}

function isFit(
  { fields, notBefore, notAfter }: GoCertificate,
  kind: 'leaf' | 'intermediate' | 'root',
  below: readonly GoCertificate[],
  nowNs: bigint,
): boolean {
  const { basicConstraints, unhandledCritical } = fields;
  if (unhandledCritical.length > 0) return false;
  if (nowNs < BigInt(notBefore) * 1_000_000n || nowNs > BigInt(notAfter) * 1_000_000n) return false;
  if (kind === 'intermediate' && basicConstraints?.isCa !== true) return false;
  const maxPathLength = basicConstraints?.maxPathLength ?? -1n;
  return maxPathLength < 0n || BigInt(below.length - 1) <= maxPathLength;
}

/** False for a chain whose policies would have to be worked out (RFC 9618); nothing about them is required of others. */
function hasPlainPolicies(chain: readonly GoCertificate[]): boolean {
  return chain
    .slice(0, -1)
    .every(
      ({ fields: { requireExplicitPolicy, policyMappings } }) =>
        requireExplicitPolicy === undefined &&
        !policyMappings.some(({ issuer, subject }) => issuer.equals(anyPolicy) || subject.equals(anyPolicy)),
    );
}

/** Usages nest: one is allowed that every certificate with a list allows. */
function allowsUsage(chain: readonly GoCertificate[], wanted: readonly number[]): boolean {
  if (wanted.includes(anyUsage)) return true;
  return wanted.some((usage) =>
    chain.every(
      ({ fields: { extKeyUsage, unknownExtKeyUsage } }) =>
        extKeyUsage.length + unknownExtKeyUsage.length === 0 ||
        extKeyUsage.includes(anyUsage) ||
        extKeyUsage.includes(usage),
    ),
  );
}
