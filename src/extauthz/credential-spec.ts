import type { SpiffeId } from '../spiffe/spiffe-id.ts';

/** A JWT-SVID that a request must not go on without. */
export type CredentialSpec = Readonly<{
  /** In lower case. */
  header: string;
  /** Stands before the token; empty for none. */
  scheme: string;
  audience: string;
  spiffeId: SpiffeId;
}>;
