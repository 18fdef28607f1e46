import { toAppError } from '../runtime/errors.ts';
import { createLatest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { JwtBundleSet } from '../spiffe/bundle.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { checkJwtBundles, checkX509Context, defaultTrustLimits, type TrustLimits } from './check-update.ts';
import { sameJwtBundles, sameSvids, sameX509Bundles } from './same-material.ts';
import { emptySnapshot, type SnapshotReader, type TrustSnapshot } from './snapshot.ts';

/** A full new state of one profile of the source, or its withdrawal. X.509 and JWT never touch each other's part. */
export type TrustUpdate =
  | Readonly<{ kind: 'x509'; context: X509Context }>
  | Readonly<{ kind: 'x509_revoked' }>
  | Readonly<{ kind: 'jwt_bundles'; bundles: JwtBundleSet }>
  | Readonly<{ kind: 'jwt_bundles_revoked' }>;

/** What the store counts. */
export interface TrustMeter {
  applied(kind: TrustUpdate['kind'], outcome: 'changed' | 'unchanged' | 'refused'): void;
  /** An SVID was replaced by another certificate for the same ID. */
  rotated(spiffeId: SpiffeId): void;
}

/** Holds the one current snapshot and reduces updates into the next. */
export interface TrustStore extends SnapshotReader {
  /**
   * Takes an update whole or not at all. The same material again is `unchanged` and announced to nobody. Throws an
   * AppError for an update that breaks a limit or a rule; the last good snapshot stays.
   */
  apply(update: TrustUpdate): 'changed' | 'unchanged';
}

/** Creates a store with the empty snapshot. With `expectedTrustDomain`, SVIDs of any other never enter. */
export function createTrustStore(options: {
  limits?: TrustLimits | undefined;
  expectedTrustDomain?: TrustDomain | undefined;
  now: () => number;
  log: Logger;
  meter: TrustMeter;
}): TrustStore {
  const { limits = defaultTrustLimits, expectedTrustDomain, now, log, meter } = options;
  const latest = createLatest<TrustSnapshot>(emptySnapshot);

  function reduce(held: TrustSnapshot, update: TrustUpdate): TrustSnapshot {
    if (update.kind === 'x509') {
      checkX509Context(update.context, { limits, expectedTrustDomain, now: now() });
      return takeX509(held, update.context);
    }
    if (update.kind === 'x509_revoked') {
      return held.svids.length === 0 && held.bundles.size === 0 ? held : next(held, withoutX509);
    }
    if (update.kind === 'jwt_bundles') {
      checkJwtBundles(update.bundles, held, limits);
      return takeJwtBundles(held, update.bundles);
    }
    return held.jwtBundles.size === 0 ? held : next(held, { jwtBundles: emptySnapshot.jwtBundles });
  }

  function apply(update: TrustUpdate): 'changed' | 'unchanged' {
    const held = latest.current();
    let snapshot: TrustSnapshot;
    try {
      snapshot = reduce(held, update);
    } catch (error) {
      meter.applied(update.kind, 'refused');
      throw toAppError(error);
    }
    const outcome = snapshot === held ? 'unchanged' : 'changed';
    meter.applied(update.kind, outcome);
    if (outcome === 'unchanged') return outcome;
    for (const spiffeId of rotatedIds(held.svids, snapshot.svids)) meter.rotated(spiffeId);
    log.info(
      {
        kind: update.kind,
        version: snapshot.version,
        trustDomain: snapshot.trustDomain,
        spiffeIds: snapshot.svids.map(({ spiffeId }) => spiffeId),
        bundles: [...snapshot.bundles.keys()],
        jwtBundles: [...snapshot.jwtBundles.keys()],
      },
      'trust snapshot changed',
    );
    latest.set(snapshot);
    return outcome;
  }

  return Object.freeze<TrustStore>({
    current: () => latest.current(),
    changes: (signal) => latest.changes(signal),
    apply,
  });
}

const withoutX509 = Object.freeze({
  trustDomain: emptySnapshot.trustDomain,
  svids: emptySnapshot.svids,
  bundles: emptySnapshot.bundles,
});

function takeX509(held: TrustSnapshot, context: X509Context): TrustSnapshot {
  const svids = withoutRepeatedHints(context.svids);
  if (sameSvids(held.svids, svids) && sameX509Bundles(held.bundles, context.bundles)) return held;
  return next(held, {
    trustDomain: trustDomainOf(context.svids[0].spiffeId),
    svids,
    bundles: byName(context.bundles),
  });
}

function takeJwtBundles(held: TrustSnapshot, bundles: JwtBundleSet): TrustSnapshot {
  return sameJwtBundles(held.jwtBundles, bundles) ? held : next(held, { jwtBundles: byName(bundles) });
}

function next(held: TrustSnapshot, change: Partial<TrustSnapshot>): TrustSnapshot {
  return Object.freeze({ ...held, ...change, version: held.version + 1 });
}

/** Workload API §5.2.1: of several SVIDs with one hint the first is taken; without a hint all are. */
function withoutRepeatedHints(svids: readonly X509Svid[]): readonly X509Svid[] {
  const seen = new Set<string>();
  return Object.freeze(
    svids.filter(({ hint }) => {
      if (hint === '') return true;
      const first = !seen.has(hint);
      seen.add(hint);
      return first;
    }),
  );
}

/** A copy that the giver cannot change, in an order that does not depend on how a message was laid out. */
function byName<T>(bundles: ReadonlyMap<TrustDomain, T>): ReadonlyMap<TrustDomain, T> {
  return new Map([...bundles].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function rotatedIds(before: readonly X509Svid[], after: readonly X509Svid[]): readonly SpiffeId[] {
  const held = new Set(before.map(({ chain: [leaf] }) => leaf.fingerprint));
  const ids = new Set(before.map(({ spiffeId }) => spiffeId));
  return after
    .filter(({ spiffeId, chain: [leaf] }) => ids.has(spiffeId) && !held.has(leaf.fingerprint))
    .map(({ spiffeId }) => spiffeId);
}
