import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { BundleRefusal } from './refusal.ts';

/** Where a bundle of a federated trust domain came from. */
export type BundleOrigin = 'endpoint' | 'persisted' | 'bootstrap';

/** What is counted of federation. Trust domains are those of the configuration, so they are bounded. */
export interface FederationMeter {
  /** A bundle was taken. */
  taken(trustDomain: TrustDomain, origin: BundleOrigin, outcome: 'changed' | 'unchanged'): void;
  refused(trustDomain: TrustDomain, reason: BundleRefusal): void;
  /** When the bundle held was last confirmed by its endpoint, in milliseconds since the epoch. */
  fetched(trustDomain: TrustDomain, at: number): void;
  /** The trust domain is no longer federated with. */
  removed(trustDomain: TrustDomain): void;
  /** Our own endpoint answered. */
  served(status: 200 | 404 | 405 | 503): void;
}
