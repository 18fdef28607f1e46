import type { Instruments } from '../instruments.ts';

export function federationMetrics({ counter, gauge }: Instruments) {
  const updates = counter(
    'federation_bundles_total',
    'Bundles of federated trust domains that were taken, by where they came from.',
    ['trust_domain', 'origin', 'outcome'],
  );
  const refusals = counter(
    'federation_refusals_total',
    'Fetches of federated bundles that came to nothing; the last good bundle stayed.',
    ['trust_domain', 'reason'],
  );
  const fetched = gauge(
    'federation_fetched_timestamp_seconds',
    'When the bundle endpoint of this trust domain last gave a good bundle, in seconds since the epoch.',
    ['trust_domain'],
  );
  const served = counter('federation_served_total', 'Answers of our own bundle endpoint.', ['status']);
  return Object.freeze({
    taken: (trustDomain: string, origin: string, outcome: string): void =>
      updates.inc({ trust_domain: trustDomain, origin, outcome }),
    refused: (trustDomain: string, reason: string): void =>
      refusals.inc({ trust_domain: trustDomain, reason }),
    fetched: (trustDomain: string, at: number): void => fetched.set({ trust_domain: trustDomain }, at / 1000),
    removed: (trustDomain: string): void => fetched.remove({ trust_domain: trustDomain }),
    served: (status: number): void => served.inc({ status }),
  });
}
