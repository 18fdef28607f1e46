import type { Certificate } from '../spiffe/certificate.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { sameSvids } from '../trust/same-material.ts';
import { emptySnapshot, type SnapshotReader, type TrustSnapshot } from '../trust/snapshot.ts';

/** What became different from one snapshot to the next. */
export type IdentityChange =
  | Readonly<{ kind: 'svids'; svids: readonly X509Svid[] }>
  | Readonly<{ kind: 'bundle'; trustDomain: TrustDomain; snapshot: TrustSnapshot }>;

/** Since when things are held; times in milliseconds since the epoch. */
export interface IdentityHistory {
  /** When this certificate came in place of another, or as the first of its ID. */
  rotatedAt(svid: X509Svid): number;
  /** When the bundle of a trust domain, X.509 or JWT, was last another one than before. */
  bundleChangedAt(trustDomain: TrustDomain): number;
  /** Follows the snapshots until `signal` fires. */
  run(signal: AbortSignal): Promise<void>;
}

/** `onChange` is told of every change, in the order of their coming. */
export function createIdentityHistory(options: {
  snapshots: SnapshotReader;
  now: () => number;
  onChange: (change: IdentityChange) => void;
}): IdentityHistory {
  const { snapshots, now, onChange } = options;
  let held = emptySnapshot;
  let certificates: ReadonlyMap<string, number> = new Map();
  let bundles: ReadonlyMap<TrustDomain, Readonly<{ material: string; since: number }>> = new Map();

  function take(snapshot: TrustSnapshot): void {
    const at = now();
    const before = held;
    held = snapshot;
    const leaves = snapshot.svids.map(({ chain: [leaf] }) => leaf.fingerprint);
    certificates = new Map(leaves.map((leaf) => [leaf, certificates.get(leaf) ?? at]));
    if (!sameSvids(before.svids, snapshot.svids)) onChange({ kind: 'svids', svids: snapshot.svids });

    const known = bundles;
    const names = trustDomainsOf(snapshot);
    bundles = new Map(
      names.map((name) => {
        const material = materialOf(snapshot, name);
        const last = known.get(name);
        return [name, last?.material === material ? last : { material, since: at }];
      }),
    );
    for (const trustDomain of new Set([...known.keys(), ...names])) {
      if (bundles.get(trustDomain) === known.get(trustDomain)) continue;
      onChange({ kind: 'bundle', trustDomain, snapshot });
    }
  }

  return Object.freeze({
    rotatedAt: ({ chain: [leaf] }: X509Svid) => certificates.get(leaf.fingerprint) ?? now(),
    bundleChangedAt: (trustDomain: TrustDomain) => bundles.get(trustDomain)?.since ?? now(),
    async run(signal: AbortSignal) {
      for await (const snapshot of snapshots.changes(signal)) take(snapshot);
    },
  });
}

/** Every trust domain of which a bundle is held, X.509 or JWT, by name. */
export function trustDomainsOf({ bundles, jwtBundles }: TrustSnapshot): readonly TrustDomain[] {
  return [...new Set([...bundles.keys(), ...jwtBundles.keys()])].sort();
}

/** Equal for equal bundles. */
function materialOf({ bundles, jwtBundles }: TrustSnapshot, trustDomain: TrustDomain): string {
  const x509 = bundles.get(trustDomain);
  return JSON.stringify([
    x509?.authorities.map(({ fingerprint }: Certificate) => fingerprint),
    x509?.crls.map((crl) => crl.toString('base64')),
    jwtBundles.get(trustDomain)?.authorities.map(({ jwk }) => jwk),
  ]);
}
