import type { Sleep } from '../runtime/abort.ts';
import { AbortedError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { createX509Authority } from '../spiffe/authority.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import type { SnapshotReader, TrustSnapshot } from '../trust/snapshot.ts';
import { type CrlChoice, chooseCrls } from './crls.ts';
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
  /** Yields whenever time alone has changed the catalog: a CRL comes of age or goes out of date. Ends with `signal`. */
  changes(signal: AbortSignal): AsyncIterable<unknown>;
}

/** Timers are not to be trusted with long waits, and this is well below the margin that CRLs are taken out with. */
const lookAgainMs = 15_000;

const standInTtlMs = 10 * 365 * 24 * 3600 * 1000;

/** Catalogs over `snapshots` and `jwtSvids`; a domain whose CRLs are left out is told to the log once for each reason. */
export async function createCatalogs(deps: {
  snapshots: SnapshotReader;
  jwtSvids: () => JwtSvidsByAudience;
  options: CatalogOptions;
  now: () => number;
  sleep: Sleep;
  log: Logger;
}): Promise<Catalogs> {
  const { snapshots, jwtSvids, options, now, sleep, log } = deps;
  const unsatisfiable = await createStandIn(now());
  let known = noKnownDomains;
  let choice: { snapshot: TrustSnapshot; chosen: CrlChoice } | undefined;
  let latest: { choice: CrlChoice; tokens: JwtSvidsByAudience; catalog: Catalog } | undefined;

  function chooseNow(snapshot: TrustSnapshot): CrlChoice {
    if (choice?.snapshot === snapshot && now() < choice.chosen.until) return choice.chosen;
    const chosen = chooseCrls(snapshot, now());
    for (const [trustDomain, reason] of chosen.leftOut) {
      if (choice?.chosen.leftOut.get(trustDomain) === reason) continue;
      log.warn({ trustDomain, reason }, 'CRLs are kept from Envoy, which would refuse everybody with them');
    }
    choice = { snapshot, chosen };
    return chosen;
  }

  function current(): Catalog {
    const snapshot = snapshots.current();
    const tokens = jwtSvids();
    const chosen = chooseNow(snapshot);
    if (latest?.choice !== chosen || latest.tokens !== tokens) {
      known = rememberDomains(known, snapshot);
      const catalog = createCatalog(snapshot, tokens, known, unsatisfiable, options, chosen.crls);
      latest = { choice: chosen, tokens, catalog };
    }
    return latest.catalog;
  }

  async function* changes(signal: AbortSignal): AsyncIterable<unknown> {
    let seen = choice?.chosen;
    while (!signal.aborted) {
      try {
        await sleep(lookAgainMs, signal);
      } catch (error) {
        if (error instanceof AbortedError) return;
        throw error;
      }
      const chosen = chooseNow(snapshots.current());
      if (chosen !== seen) yield undefined;
      seen = chosen;
    }
  }

  return Object.freeze({ current, changes });
}

async function createStandIn(now: number): Promise<Certificate> {
  const trustDomain = parseTrustDomain('nobody.invalid');
  return (await createX509Authority({ trustDomain, ttlMs: standInTtlMs, now })).certificate;
}
