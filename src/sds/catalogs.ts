import { createX509Authority } from '../spiffe/authority.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import type { SnapshotReader, TrustSnapshot } from '../trust/snapshot.ts';
import {
  type Catalog,
  type CatalogOptions,
  createCatalog,
  type JwtSvidsByAudience,
  noKnownDomains,
  rememberDomains,
} from './resources.ts';

/** Gives the catalog of the current snapshot and JWT-SVIDs, made once for all streams. */
export interface Catalogs {
  current(): Catalog;
}

const standInTtlMs = 10 * 365 * 24 * 3600 * 1000;

/** `now` in milliseconds dates the stand-in authority, whose key is dropped as soon as it has signed itself. */
export async function createCatalogs(
  snapshots: SnapshotReader,
  jwtSvids: () => JwtSvidsByAudience,
  options: CatalogOptions,
  now: number,
): Promise<Catalogs> {
  const unsatisfiable = await createStandIn(now);
  let known = noKnownDomains;
  let latest: { snapshot: TrustSnapshot; tokens: JwtSvidsByAudience; catalog: Catalog } | undefined;

  function current(): Catalog {
    const snapshot = snapshots.current();
    const tokens = jwtSvids();
    if (latest?.snapshot !== snapshot || latest.tokens !== tokens) {
      known = rememberDomains(known, snapshot);
      latest = { snapshot, tokens, catalog: createCatalog(snapshot, tokens, known, unsatisfiable, options) };
    }
    return latest.catalog;
  }

  return Object.freeze({ current });
}

async function createStandIn(now: number): Promise<Certificate> {
  const trustDomain = parseTrustDomain('nobody.invalid');
  return (await createX509Authority({ trustDomain, ttlMs: standInTtlMs, now })).certificate;
}
