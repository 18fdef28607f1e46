import { existsSync } from 'node:fs';
import { readFederationEntries } from '../app/federation.ts';
import type { Config } from '../config/config.ts';
import { createBundleFiles } from '../federation/bundle-files.ts';
import type { FederationEntry } from '../federation/federation-entry.ts';
import { bootstrapOf, endpointDomainOf, fetchBundle } from '../federation/fetch-bundle.ts';
import type { X509Bundle, X509BundleSet } from '../spiffe/bundle.ts';
import { type BundleDocument, parseBundleDocument } from '../spiffe/bundle-document.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';

/** One partner to try; `attempt` resolves with what its endpoint gives. */
export type FederationAttempt = Readonly<{ trustDomain: TrustDomain; attempt(): Promise<BundleDocument> }>;

/** A bundle in numbers, for people. */
export function describeBundle({ x509, jwt, sequence }: BundleDocument): string {
  const counts = `${x509.authorities.length} X.509 and ${jwt.authorities.length} JWT authorities`;
  return sequence === undefined ? counts : `${counts}, sequence ${sequence}`;
}

/**
 * An attempt for each partner's bundle endpoint, to be made in this order: endpoints are verified with what the identity
 * source holds, what is kept on disk, the bootstrap bundles, and what earlier attempts have brought.
 */
export async function federationAttempts(
  { federation }: Config,
  deps: Readonly<{ held: () => X509BundleSet; now: () => number; signal: AbortSignal }>,
): Promise<readonly FederationAttempt[]> {
  const { held, now, signal } = deps;
  const entries = await readFederationEntries(federation.trustDomains);
  const known = new Map<TrustDomain, X509Bundle>();
  const { persistDir } = federation;
  if (persistDir !== undefined && existsSync(persistDir)) {
    const files = await createBundleFiles(persistDir);
    for (const { trustDomain } of entries) {
      const saved = await files.load(trustDomain);
      if (saved !== undefined) known.set(trustDomain, parseBundleDocument(saved.text, trustDomain).x509);
    }
  }

  async function attempt(entry: FederationEntry): Promise<BundleDocument> {
    const vouching = endpointDomainOf(entry);
    const bootstrap = bootstrapOf(entry);
    const brought =
      vouching === undefined || bootstrap === undefined ? [] : [[vouching, bootstrap.x509] as const];
    const bundles = new Map([...brought, ...known, ...held()]);
    const { document } = await fetchBundle(entry, { bundles: () => bundles, now }, signal);
    known.set(entry.trustDomain, document.x509);
    return document;
  }

  const self = (entry: FederationEntry): number =>
    [undefined, entry.trustDomain].includes(endpointDomainOf(entry)) ? 0 : 1;
  return [...entries]
    .sort((a, b) => self(a) - self(b))
    .map((entry) => ({ trustDomain: entry.trustDomain, attempt: () => attempt(entry) }));
}
