import type { JwtBundleSet, X509BundleSet } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

/** All that this process is and trusts at one moment; never changed, only replaced. */
export type TrustSnapshot = Readonly<{
  /** 0 before the first update, and higher with each one that changed something. */
  version: number;
  /** That of the default SVID; undefined while there is no identity. */
  trustDomain: TrustDomain | undefined;
  /** In the source's order, the default first. One that expired while held is still here: see `usableSvids`. */
  svids: readonly X509Svid[];
  /** Those of the SVIDs' chains, then earlier ones that were still valid when the source last spoke. */
  intermediates: readonly Certificate[];
  /** Own and federated, in the order of their names. A domain without authorities is known and not trusted. */
  bundles: X509BundleSet;
  jwtBundles: JwtBundleSet;
}>;

/** Where a snapshot is read; what most rooms know of the store. */
export interface SnapshotReader {
  current(): TrustSnapshot;
  /** Yields the current snapshot, then each newer one, conflated: a slow reader skips to the newest. Ends with `signal`. */
  changes(signal: AbortSignal): AsyncIterable<TrustSnapshot>;
}

/** The snapshot before the first update: no identity, no trust. */
export const emptySnapshot: TrustSnapshot = Object.freeze({
  version: 0,
  trustDomain: undefined,
  svids: Object.freeze([]),
  intermediates: Object.freeze([]),
  bundles: new Map(),
  jwtBundles: new Map(),
});

/** The SVIDs that may be given to newcomers at `now` (milliseconds): none that expired while held. */
export function usableSvids(snapshot: TrustSnapshot, now: number): readonly X509Svid[] {
  return snapshot.svids.filter(({ chain: [leaf] }) => leaf.notAfter >= now);
}

/**
 * The SVID that stands for this workload where none is named: the first, or with `hint` the first that has it. By hint
 * there is no falling back: another identity than the one asked for is worse than none.
 */
export function defaultSvid({ svids }: TrustSnapshot, hint: string | undefined): X509Svid | undefined {
  return hint === undefined ? svids[0] : svids.find((svid) => svid.hint === hint);
}

/** The default SVID when it may be given to newcomers at `now` (milliseconds). */
export function usableDefaultSvid(
  snapshot: TrustSnapshot,
  hint: string | undefined,
  now: number,
): X509Svid | undefined {
  const svid = defaultSvid(snapshot, hint);
  return svid !== undefined && svid.chain[0].notAfter >= now ? svid : undefined;
}
