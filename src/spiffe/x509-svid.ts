import type { Certificate } from './certificate.ts';
import type { SpiffeId } from './spiffe-id.ts';

/** An X509-SVID with its private key (X509-SVID §2). */
export type X509Svid = Readonly<{
  spiffeId: SpiffeId;
  /** Leaf first, then the intermediates up to, not including, the authority. */
  chain: readonly [Certificate, ...Certificate[]];
  /** PKCS#8 DER, unencrypted. A Buffer, so that it never becomes a string by accident; never logged. */
  privateKey: Buffer;
  /** The Workload API's hint; empty when none was given. */
  hint: string;
}>;
