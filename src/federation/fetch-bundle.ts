import type { ServerTrust } from '../http/server-trust.ts';
import { verifiedGet } from '../http/verified-get.ts';
import { MalformedError } from '../runtime/errors.ts';
import type { X509BundleSet } from '../spiffe/bundle.ts';
import { type BundleDocument, parseBundleDocument } from '../spiffe/bundle-document.ts';
import { type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { FederationEntry } from './federation-entry.ts';

/** A bundle as it came from its endpoint, and the text of it for keeping. */
export type FetchedBundle = Readonly<{ document: BundleDocument; text: string }>;

const timeoutMs = 10_000;
export const maxBundleBytes = 1024 * 1024;
const maxRedirects = 3;

/**
 * Fetches the bundle of `entry.trustDomain` by the rules of its profile (SPIFFE Federation §5): within 10 s, at most 1
 * MiB, only with status 200, over at most 3 redirects that stay https and lead to servers that prove the same identity.
 * `bundles` are what an https_spiffe endpoint's certificate is verified against. Rejects with an AppError that
 * `refusalOf` classifies.
 */
export async function fetchBundle(
  entry: FederationEntry,
  deps: Readonly<{ bundles: () => X509BundleSet; now: () => number }>,
  signal: AbortSignal,
): Promise<FetchedBundle> {
  const { profile, trustDomain, url } = entry;
  const trust: ServerTrust =
    profile.kind === 'https_spiffe'
      ? { kind: 'spiffe', spiffeIds: [profile.spiffeId], ...deps }
      : { kind: 'web', caPem: profile.caPem };
  const body = await verifiedGet({ url, trust, timeoutMs, maxBytes: maxBundleBytes, maxRedirects }, signal);
  const text = decodeBundleText(body, trustDomain);
  return Object.freeze({ document: parseBundleDocument(text, trustDomain), text });
}

/** Bundle documents are UTF-8 (RFC 8259 §8.1); anything else is refused, not repaired. */
export function decodeBundleText(bytes: Buffer, trustDomain: TrustDomain): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new MalformedError(`bundle of trust domain ${trustDomain} is not UTF-8`, { cause });
  }
}

/** The trust domain whose bundle vouches for the endpoint, or undefined when the Web PKI does. */
export function endpointDomainOf({ profile }: FederationEntry): TrustDomain | undefined {
  return profile.kind === 'https_spiffe' ? trustDomainOf(profile.spiffeId) : undefined;
}

/** The bundle that the entry brings along; of the endpoint's own trust domain. Throws MalformedError or LimitError. */
export function bootstrapOf(entry: FederationEntry): BundleDocument | undefined {
  if (entry.bootstrap === undefined) return undefined;
  return parseBundleDocument(entry.bootstrap, endpointDomainOf(entry) ?? entry.trustDomain);
}
