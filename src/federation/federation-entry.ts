import type { SpiffeId, TrustDomain } from '../spiffe/spiffe-id.ts';

/** One trust domain that is federated with, and where its bundle comes from (SPIFFE Federation §4). Plain data. */
export type FederationEntry = Readonly<{
  trustDomain: TrustDomain;
  /** `https://…`, in the form of `parseHttpsUrl`. */
  url: string;
  profile:
    | Readonly<{ kind: 'https_spiffe'; spiffeId: SpiffeId }>
    | Readonly<{ kind: 'https_web'; caPem: string | undefined }>;
  /**
   * A SPIFFE bundle document for the time before the first fetch: with https_spiffe that of the endpoint's own trust
   * domain, with https_web that of `trustDomain`.
   */
  bootstrap: string | undefined;
}>;
