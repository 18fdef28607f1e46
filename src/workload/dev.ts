import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, AppError } from '../runtime/errors.ts';
import { createLatest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import {
  createJwtSigner,
  createX509Authority,
  type JwtSigner,
  type X509Authority,
} from '../spiffe/authority.ts';
import type { JwtAuthority, JwtBundle, JwtBundleSet, X509Bundle } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import { pathOf, type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { IdentitySource, JwtSvidRequest, WatchEvent } from './identity-source.ts';

export type DevSourceOptions = Readonly<{
  trustDomain: TrustDomain;
  /** The first is the default identity; all of `trustDomain` and with a path. */
  spiffeIds: readonly SpiffeId[];
  svidTtlMs: number;
  jwtSvidTtlMs: number;
  /** Milliseconds since the epoch. */
  now: () => number;
  sleep: Sleep;
  log: Logger;
  meter?: DevMeter;
}>;

/** What the embedded authority counts. */
export interface DevMeter {
  devIssued(kind: 'x509' | 'jwt', count: number): void;
}

/** Identity without a SPIRE: an embedded authority whose keys live in memory and end with the process. */
export interface DevSource extends IdentitySource {
  readonly name: 'dev';
  /** Renews the X509-SVIDs at half of their life, and the authorities in time before the certificate ends, until `signal` fires. */
  run(signal: AbortSignal): Promise<void>;
  /** Issues new X509-SVIDs now. */
  rotate(): Promise<void>;
}

const dayMs = 86_400_000;
/** Timers stand still while a machine sleeps, so the clock is looked at again at least this often. */
const maxSleepMs = 30_000;

/** What signs SVIDs of both kinds, for as long as the certificate lives. */
type Authority = Readonly<{ x509: X509Authority; jwt: JwtSigner }>;

type Authorities = Readonly<{
  signing: Authority;
  /** In the bundles so that every peer knows it, but not signing yet. */
  next: Readonly<{ authority: Authority; usableAt: number }> | undefined;
  /** Still in the bundles for the SVIDs that they signed, each kind for as long as one can live. */
  retired: readonly Readonly<{ authority: Authority; at: number }>[];
}>;

/** An embedded authority with its first X509-SVIDs already issued. Throws AppError for identities it may not have. */
export async function createDevSource(options: DevSourceOptions): Promise<DevSource> {
  const { trustDomain, spiffeIds, svidTtlMs, jwtSvidTtlMs, now, sleep, log, meter } = options;
  checkIdentities(trustDomain, spiffeIds);
  const authorityTtlMs = Math.max(dayMs, 10 * svidTtlMs);
  const newAuthority = async (): Promise<Authority> => ({
    x509: await createX509Authority({ trustDomain, ttlMs: authorityTtlMs, now: now() }),
    jwt: await createJwtSigner(),
  });

  let authorities: Authorities = { signing: await newAuthority(), next: undefined, retired: [] };
  let renewAt = 0;
  const x509 = createLatest<X509Context>(await issue());
  const jwt = createLatest<JwtBundleSet>(jwtBundlesOf(currentFor(jwtSvidTtlMs).map(jwtAuthorityOf)));

  /** Those in the bundle for SVIDs that live that long; the one that signs is the first. */
  function currentFor(ttlMs: number): readonly Authority[] {
    const { signing, next, retired } = authorities;
    const needed = retired.filter(({ at }) => at + ttlMs > now());
    return [
      signing,
      ...(next === undefined ? [] : [next.authority]),
      ...needed.map(({ authority }) => authority),
    ];
  }

  function jwtBundlesOf(keys: readonly JwtAuthority[]): JwtBundleSet {
    const bundle: JwtBundle = Object.freeze({ trustDomain, authorities: Object.freeze(keys) });
    return new Map([[trustDomain, bundle]]);
  }

  async function issue(): Promise<X509Context> {
    const at = now();
    const svids: X509Svid[] = [];
    for (const spiffeId of spiffeIds) {
      svids.push(await authorities.signing.x509.issue({ spiffeId, ttlMs: svidTtlMs, now: at }));
    }
    meter?.devIssued('x509', svids.length);
    const [first, ...others] = svids;
    if (first === undefined) throw new AppError('internal', 'dev identity has no SPIFFE ID');
    const bundle: X509Bundle = Object.freeze({
      trustDomain,
      authorities: Object.freeze(currentFor(svidTtlMs).map(certificateOf)),
      crls: Object.freeze([]),
    });
    renewAt = at + svidTtlMs / 2;
    return Object.freeze({
      svids: Object.freeze([first, ...others] as const),
      bundles: new Map([[trustDomain, bundle]]),
    });
  }

  async function renew(): Promise<void> {
    const lifetimes = { svidTtlMs, jwtSvidTtlMs };
    authorities = await rotateAuthorities(authorities, { now: now(), ...lifetimes, newAuthority });
    x509.set(await issue());
    const keys = currentFor(jwtSvidTtlMs).map(jwtAuthorityOf);
    const held = jwt.current().get(trustDomain)?.authorities ?? [];
    if (keys.length !== held.length || keys.some((key, index) => key !== held[index])) {
      jwt.set(jwtBundlesOf(keys));
    }
    log.info(
      { trustDomain, expiresAt: new Date(x509.current().svids[0].chain[0].notAfter).toISOString() },
      'dev identity renewed',
    );
  }

  // One renewal at a time: rotate() may be called while run() renews.
  let last: Promise<void> = Promise.resolve();
  function renewInTurn(): Promise<void> {
    last = last.then(renew, renew);
    return last;
  }

  return Object.freeze({
    name: 'dev' as const,
    watchX509: (signal: AbortSignal) => updates(x509.changes(signal)),
    watchJwtBundles: (signal: AbortSignal) => updates(jwt.changes(signal)),
    async fetchJwtSvids({ audiences, spiffeId }: JwtSvidRequest): Promise<readonly JwtSvid[]> {
      if (audiences.length === 0 || audiences.includes('')) {
        throw new AppError('invalid_argument', 'a JWT-SVID needs an audience');
      }
      const ids = spiffeId === undefined ? spiffeIds : spiffeIds.filter((id) => id === spiffeId);
      if (ids.length === 0) throw new AppError('permission_denied', 'no identity issued');
      const at = now();
      const signer = authorities.signing.jwt;
      const sign = (id: SpiffeId) => signer.sign({ spiffeId: id, audiences, ttlMs: jwtSvidTtlMs, now: at });
      const svids = await Promise.all(ids.map(sign));
      meter?.devIssued('jwt', svids.length);
      return Object.freeze(svids);
    },
    async run(signal: AbortSignal): Promise<void> {
      try {
        while (!signal.aborted) {
          const waitMs = renewAt - now();
          if (waitMs <= 0) await renewInTurn();
          else await sleep(Math.min(waitMs, maxSleepMs), signal);
        }
      } catch (error) {
        if (!(error instanceof AbortedError)) throw error;
      }
    },
    rotate: renewInTurn,
  });
}

/**
 * Brings a new authority into the bundle while the old one can still outlive what it signs, lets it sign only after
 * everybody had half an SVID's life to learn of it, and drops the old one after its last SVID has expired.
 */
async function rotateAuthorities(
  current: Authorities,
  {
    now,
    svidTtlMs,
    jwtSvidTtlMs,
    newAuthority,
  }: { now: number; svidTtlMs: number; jwtSvidTtlMs: number; newAuthority: () => Promise<Authority> },
): Promise<Authorities> {
  const lastsMs = ({ x509 }: Authority): number => x509.certificate.notAfter - now;
  const remainingMs = lastsMs(current.signing);
  const retired = current.retired.filter(({ at }) => at + Math.max(svidTtlMs, jwtSvidTtlMs) > now);
  // After a long sleep of the machine there may be no time left for an overlap.
  const mustSwitch = remainingMs < svidTtlMs;
  if (mustSwitch || (current.next !== undefined && current.next.usableAt <= now)) {
    const published = current.next?.authority;
    const fit = published !== undefined && lastsMs(published) >= svidTtlMs;
    const signing = fit ? published : await newAuthority();
    return { signing, next: undefined, retired: [...retired, { authority: current.signing, at: now }] };
  }
  if (current.next === undefined && remainingMs < 3 * svidTtlMs) {
    const next = { authority: await newAuthority(), usableAt: now + svidTtlMs / 2 };
    return { signing: current.signing, next, retired };
  }
  return { ...current, retired };
}

function certificateOf({ x509 }: Authority): Certificate {
  return x509.certificate;
}

function jwtAuthorityOf({ jwt }: Authority): JwtAuthority {
  return jwt.authority;
}

async function* updates<T>(values: AsyncIterable<T>): AsyncIterable<WatchEvent<T>> {
  for await (const value of values) yield { kind: 'update', value };
}

function checkIdentities(trustDomain: TrustDomain, spiffeIds: readonly SpiffeId[]): void {
  if (spiffeIds.length === 0)
    throw new AppError('invalid_argument', 'dev identity needs at least one SPIFFE ID');
  for (const id of spiffeIds) {
    if (trustDomainOf(id) !== trustDomain) {
      throw new AppError('invalid_argument', `dev identity ${id} is not of the trust domain ${trustDomain}`);
    }
    // X509-SVID §5.2: the ID of a workload has a path.
    if (pathOf(id) === '') throw new AppError('invalid_argument', `dev identity ${id} has no path`);
  }
}
