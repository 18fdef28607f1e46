import { toAppError } from '../runtime/errors.ts';
import { createLatest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { JwtBundleSet, X509BundleSet } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import {
  checkFederated,
  checkJwtBundles,
  checkX509Context,
  defaultTrustLimits,
  type FederatedBundle,
  type TrustLimits,
} from './check-update.ts';
import { gatherIntermediates } from './intermediates.ts';
import { sameJwtBundles, sameSvids, sameX509Bundles } from './same-material.ts';
import { emptySnapshot, type SnapshotReader, type TrustSnapshot } from './snapshot.ts';

/**
 * A full new state of one profile of the source, or its withdrawal: X.509 and JWT never touch each other's part. Or what
 * a bundle endpoint says of one trust domain, which holds where the source says nothing of that domain.
 */
export type TrustUpdate =
  | Readonly<{ kind: 'x509'; context: X509Context }>
  | Readonly<{ kind: 'x509_revoked' }>
  | Readonly<{ kind: 'jwt_bundles'; bundles: JwtBundleSet }>
  | Readonly<{ kind: 'jwt_bundles_revoked' }>
  | Readonly<{ kind: 'federated'; document: FederatedBundle }>
  | Readonly<{ kind: 'federated_removed'; trustDomain: TrustDomain }>;

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
  /** Who says what is held of a trust domain: the identity source, a bundle endpoint, or nobody. */
  originOf(trustDomain: TrustDomain): 'source' | 'endpoint' | undefined;
}

/** What each party has said, before it is put together. */
type Parts = Readonly<{
  trustDomain: TrustDomain | undefined;
  svids: readonly X509Svid[];
  intermediates: readonly Certificate[];
  bundles: X509BundleSet;
  jwtBundles: JwtBundleSet;
  federated: ReadonlyMap<TrustDomain, FederatedBundle>;
  /** The domains that SVIDs of ours have been of: no endpoint is ever asked about them. */
  own: ReadonlySet<TrustDomain>;
}>;

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
  let parts: Parts = Object.freeze({
    ...withoutX509,
    jwtBundles: emptySnapshot.jwtBundles,
    federated: new Map(),
    own: new Set(expectedTrustDomain === undefined ? [] : [expectedTrustDomain]),
  });

  function reduce(update: TrustUpdate): Parts {
    switch (update.kind) {
      case 'x509':
        checkX509Context(update.context, { limits, expectedTrustDomain, now: now() });
        return takeX509(parts, update.context, now());
      case 'x509_revoked':
        return { ...parts, ...withoutX509 };
      case 'jwt_bundles':
        checkJwtBundles(update.bundles, latest.current(), limits);
        return { ...parts, jwtBundles: new Map(update.bundles) };
      case 'jwt_bundles_revoked':
        return { ...parts, jwtBundles: emptySnapshot.jwtBundles };
      case 'federated':
        checkFederated(update.document, { limits, own: parts.own, held: parts.federated });
        return {
          ...parts,
          federated: new Map(parts.federated).set(update.document.trustDomain, update.document),
        };
      case 'federated_removed':
      default:
        return { ...parts, federated: without(parts.federated, update.trustDomain) };
    }
  }

  function apply(update: TrustUpdate): 'changed' | 'unchanged' {
    const held = latest.current();
    let snapshot: TrustSnapshot;
    try {
      const next = Object.freeze(reduce(update));
      snapshot = combine(held, next);
      parts = next;
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
    originOf(trustDomain) {
      if (parts.bundles.has(trustDomain) || parts.jwtBundles.has(trustDomain)) return 'source';
      return parts.federated.has(trustDomain) && !parts.own.has(trustDomain) ? 'endpoint' : undefined;
    },
  });
}

const withoutX509 = Object.freeze({
  trustDomain: emptySnapshot.trustDomain,
  svids: emptySnapshot.svids,
  intermediates: emptySnapshot.intermediates,
  bundles: emptySnapshot.bundles,
});

function takeX509(parts: Parts, context: X509Context, now: number): Parts {
  const trustDomain = trustDomainOf(context.svids[0].spiffeId);
  const svids = withoutRepeatedHints(context.svids);
  const earlier = trustDomain === parts.trustDomain ? parts.intermediates : [];
  return {
    ...parts,
    trustDomain,
    svids,
    intermediates: gatherIntermediates(svids, earlier, now),
    bundles: new Map(context.bundles),
    own: new Set([...parts.own, trustDomain]),
  };
}

/** The snapshot of all parts; the one held when nothing in it differs. */
function combine(held: TrustSnapshot, parts: Parts): TrustSnapshot {
  const { trustDomain, svids, intermediates } = parts;
  const endpoints = [...parts.federated.values()].filter((document) => !parts.own.has(document.trustDomain));
  const x509 = endpoints.map((document) => [document.trustDomain, document.x509] as const);
  const jwt = endpoints.map((document) => [document.trustDomain, document.jwt] as const);
  // The source's word on a domain comes later, so it replaces the endpoint's; they are never merged.
  const bundles = byName(new Map([...x509, ...parts.bundles]));
  const jwtBundles = byName(new Map([...jwt, ...parts.jwtBundles]));
  const same =
    sameSvids(held.svids, svids) &&
    sameX509Bundles(held.bundles, bundles) &&
    sameJwtBundles(held.jwtBundles, jwtBundles);
  if (same) return held;
  const version = held.version + 1;
  return Object.freeze({ version, trustDomain, svids, intermediates, bundles, jwtBundles });
}

function without<K, V>(map: ReadonlyMap<K, V>, key: K): ReadonlyMap<K, V> {
  const rest = new Map(map);
  rest.delete(key);
  return rest;
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
