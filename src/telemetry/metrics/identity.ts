import type { Instruments } from '../instruments.ts';

/** What is held, for the gauges of expiry; times in milliseconds since the epoch. */
export type HeldIdentity = Readonly<{
  svids: readonly Readonly<{ spiffeId: string; fingerprint: string; expiresAt: number }>[];
  bundles: readonly Readonly<{
    trustDomain: string;
    x509Authorities: number;
    jwtAuthorities: number;
    /** When the last X.509 authority expires; undefined when there is none. */
    expiresAt: number | undefined;
  }>[];
}>;

export function identityMetrics({ counter, gauge }: Instruments) {
  const issued = counter(
    'x509_svids_issued_total',
    'X.509-SVIDs that the identity source issued: the first for its ID, or one in place of another.',
    ['kind'],
  );
  const bundleUpdates = counter(
    'bundle_updates_total',
    'Bundles, X.509 or JWT, that came, changed or went.',
    ['trust_domain'],
  );
  let ids: ReadonlySet<string> = new Set();
  let certificates: ReadonlySet<string> = new Set();
  const svidExpiry = gauge(
    'svid_expiry_timestamp_seconds',
    'When the X.509-SVID held for this SPIFFE ID expires, in seconds since the epoch.',
    ['spiffe_id'],
  );
  const bundleExpiry = gauge(
    'bundle_expiry_timestamp_seconds',
    'When the last X.509 authority held for this trust domain expires, in seconds since the epoch.',
    ['trust_domain'],
  );
  const authorities = gauge('bundle_authorities', 'Authorities held for this trust domain.', [
    'trust_domain',
    'kind',
  ]);
  return Object.freeze({
    bundleUpdated: (trustDomain: string): void => bundleUpdates.inc({ trust_domain: trustDomain }),
    /** Tells what is held now; what was held before is forgotten. */
    held({ svids, bundles }: HeldIdentity): void {
      for (const { spiffeId, fingerprint } of svids) {
        if (!certificates.has(fingerprint)) issued.inc({ kind: ids.has(spiffeId) ? 'renewal' : 'first' });
      }
      ids = new Set(svids.map(({ spiffeId }) => spiffeId));
      certificates = new Set(svids.map(({ fingerprint }) => fingerprint));
      svidExpiry.reset();
      bundleExpiry.reset();
      authorities.reset();
      for (const { spiffeId, expiresAt } of svids) svidExpiry.set({ spiffe_id: spiffeId }, expiresAt / 1000);
      for (const { trustDomain, x509Authorities, jwtAuthorities, expiresAt } of bundles) {
        authorities.set({ trust_domain: trustDomain, kind: 'x509' }, x509Authorities);
        authorities.set({ trust_domain: trustDomain, kind: 'jwt' }, jwtAuthorities);
        if (expiresAt !== undefined) bundleExpiry.set({ trust_domain: trustDomain }, expiresAt / 1000);
      }
    },
  });
}
