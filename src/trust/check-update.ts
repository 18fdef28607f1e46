import { AppError, LimitError, MalformedError } from '../runtime/errors.ts';
import type { JwtBundle, JwtBundleSet, X509Bundle } from '../spiffe/bundle.ts';
import { type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import { checkX509Svid } from '../spiffe/x509-svid.ts';
import type { TrustSnapshot } from './snapshot.ts';

/** What the store holds at most; an update beyond is refused whole. */
export type TrustLimits = Readonly<{
  maxSvids: number;
  maxBundles: number;
  /** In one bundle. */
  maxAuthorities: number;
  /** Certificates, keys and CRLs of one update together. */
  maxDerBytes: number;
}>;

export const defaultTrustLimits: TrustLimits = Object.freeze({
  maxSvids: 1000,
  maxBundles: 1000,
  maxAuthorities: 1000,
  maxDerBytes: 16 * 1024 * 1024,
});

/** What a bundle endpoint publishes of a trust domain. */
export type FederatedBundle = Readonly<{ trustDomain: TrustDomain; x509: X509Bundle; jwt: JwtBundle }>;

/**
 * Holds an X.509 update against the limits and rules of the snapshot: every SVID valid at `now` (milliseconds), with its
 * own key, in the expected trust domain, and its own domain's bundle there. Throws an AppError.
 */
export function checkX509Context(
  context: X509Context,
  options: Readonly<{ limits: TrustLimits; expectedTrustDomain: TrustDomain | undefined; now: number }>,
): void {
  const { limits, expectedTrustDomain, now } = options;
  checkSizes(context, limits);
  for (const [name, bundle] of context.bundles) {
    if (name !== bundle.trustDomain)
      throw new MalformedError(`bundle of trust domain ${name} is filed wrongly`);
  }
  for (const svid of context.svids) {
    const trustDomain = trustDomainOf(svid.spiffeId);
    if (expectedTrustDomain !== undefined && trustDomain !== expectedTrustDomain) {
      throw new AppError(
        'conflict',
        `trust domain mismatch: expected ${expectedTrustDomain}, got ${trustDomain}`,
      );
    }
    checkX509Svid(svid, now);
    // Workload API §5.2.1: an SVID comes with its bundle; without it nobody of the own domain could be trusted.
    if ((context.bundles.get(trustDomain)?.authorities.length ?? 0) === 0) {
      throw new MalformedError(`update lacks the X.509 bundle of its own trust domain ${trustDomain}`);
    }
  }
}

/** Holds a JWT bundle update against the limits; one that would silently drop the own domain's bundle is refused. */
export function checkJwtBundles(bundles: JwtBundleSet, held: TrustSnapshot, limits: TrustLimits): void {
  if (bundles.size === 0) throw new MalformedError('update has no JWT bundle');
  checkCount(bundles.size, limits.maxBundles, 'JWT bundles');
  for (const [name, { trustDomain, authorities }] of bundles) {
    if (name !== trustDomain) throw new MalformedError(`JWT bundle of trust domain ${name} is filed wrongly`);
    checkCount(authorities.length, limits.maxAuthorities, `authorities in the JWT bundle of ${name}`);
  }
  const own = held.trustDomain;
  if (own !== undefined && held.jwtBundles.has(own) && !bundles.has(own)) {
    throw new MalformedError(`update lacks the JWT bundle of the own trust domain ${own}`);
  }
}

/** Holds what an endpoint publishes against the limits; of our own trust domain no endpoint has a say. */
export function checkFederated(
  { trustDomain, x509, jwt }: FederatedBundle,
  options: Readonly<{
    limits: TrustLimits;
    own: ReadonlySet<TrustDomain>;
    held: ReadonlyMap<TrustDomain, FederatedBundle>;
  }>,
): void {
  const { limits, own, held } = options;
  if (x509.trustDomain !== trustDomain || jwt.trustDomain !== trustDomain) {
    throw new MalformedError(`bundle of trust domain ${trustDomain} is filed wrongly`);
  }
  if (own.has(trustDomain)) {
    throw new AppError(
      'conflict',
      `${trustDomain} is our own trust domain: only the identity source speaks for it`,
    );
  }
  checkCount(held.size + (held.has(trustDomain) ? 0 : 1), limits.maxBundles, 'federated bundles');
  checkCount(x509.authorities.length, limits.maxAuthorities, `authorities in the bundle of ${trustDomain}`);
  checkCount(
    jwt.authorities.length,
    limits.maxAuthorities,
    `authorities in the JWT bundle of ${trustDomain}`,
  );
  const bytes = x509.authorities.reduce((sum, { der }) => sum + der.length, 0);
  checkCount(bytes, limits.maxDerBytes, 'bytes of certificates');
}

function checkSizes({ svids, bundles }: X509Context, limits: TrustLimits): void {
  checkCount(svids.length, limits.maxSvids, 'X509-SVIDs');
  checkCount(bundles.size, limits.maxBundles, 'X.509 bundles');
  let bytes = 0;
  for (const { chain, privateKey } of svids) {
    bytes += privateKey.length;
    for (const { der } of chain) bytes += der.length;
  }
  for (const { trustDomain, authorities, crls } of bundles.values()) {
    checkCount(authorities.length, limits.maxAuthorities, `authorities in the bundle of ${trustDomain}`);
    for (const { der } of authorities) bytes += der.length;
    for (const der of crls) bytes += der.length;
  }
  checkCount(bytes, limits.maxDerBytes, 'bytes of certificates, keys and CRLs');
}

function checkCount(count: number, max: number, what: string): void {
  if (count > max) throw new LimitError(`update has ${count} ${what}, at most ${max} are taken`);
}
