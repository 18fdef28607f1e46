import type { KeyObject } from 'node:crypto';
import type { Certificate } from './certificate.ts';
import type { TrustDomain } from './spiffe-id.ts';

/** The X.509 authorities of one trust domain. No authority at all means: trust nothing of this domain. */
export type X509Bundle = Readonly<{
  trustDomain: TrustDomain;
  authorities: readonly Certificate[];
  /** CRLs in DER that the Workload API sent for authorities of this domain. */
  crls: readonly Buffer[];
  /** The spiffe_sequence of the document that an identity source took this from; most sources know none. */
  sequence?: bigint | undefined;
}>;

/** One key that may sign JWT-SVIDs of a trust domain. */
export type JwtAuthority = Readonly<{
  /** Empty when the key has no ID. */
  keyId: string;
  /** Canonical JWK of the public key, as it was received, without private members. */
  jwk: Readonly<Record<string, unknown>>;
  publicKey: KeyObject;
}>;

/** The JWT authorities of one trust domain. */
export type JwtBundle = Readonly<{ trustDomain: TrustDomain; authorities: readonly JwtAuthority[] }>;

export type X509BundleSet = ReadonlyMap<TrustDomain, X509Bundle>;
export type JwtBundleSet = ReadonlyMap<TrustDomain, JwtBundle>;
