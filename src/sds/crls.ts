import type { X509Bundle } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { anotherIssuer, fitnessOf } from '../spiffe/crl.ts';
import { isSameKey } from '../spiffe/same-key.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';

/** The CRLs that go to Envoy, by trust domain; a domain without any is not there. */
export type CrlsByDomain = ReadonlyMap<TrustDomain, readonly Buffer[]>;

/** Which CRLs of a snapshot go to Envoy, and for which domains some were left out and why. */
export type CrlChoice = Readonly<{
  crls: CrlsByDomain;
  leftOut: ReadonlyMap<TrustDomain, string>;
  /** The choice may be another one from then on; milliseconds since the epoch. */
  until: number;
}>;

export const noCrls: CrlsByDomain = new Map();

/** A CRL is taken out so long before it is out of date, because from then on Envoy would refuse everybody. */
export const crlMarginMs = 60_000;

/**
 * Envoy, given any CRL for a trust domain, demands one for every certificate of a chain, the authority's included, and
 * refuses all that have none. So the CRLs of a domain go out only when each authority of its bundle, and each
 * intermediate known below them, has one that Envoy can rely on, and was issued by one of these itself; else none do.
 */
export function chooseCrls({ bundles, intermediates }: TrustSnapshot, now: number): CrlChoice {
  const crls = new Map<TrustDomain, readonly Buffer[]>();
  const leftOut = new Map<TrustDomain, string>();
  let until = Number.POSITIVE_INFINITY;
  for (const bundle of bundles.values()) {
    if (bundle.crls.length === 0 || bundle.authorities.length === 0) continue;
    const choice = chooseForDomain(bundle, withIssued(bundle.authorities, intermediates), now);
    until = Math.min(until, choice.until);
    if (choice.fault === undefined) crls.set(bundle.trustDomain, choice.crls);
    else leftOut.set(bundle.trustDomain, choice.fault);
  }
  return Object.freeze({ crls, leftOut, until });
}

/** The authorities and all intermediates that they, or one another, have issued. */
function withIssued(
  authorities: readonly Certificate[],
  intermediates: readonly Certificate[],
): readonly Certificate[] {
  const found = [...authorities];
  for (const issuer of found) {
    const issued = intermediates.filter(({ native }) => native.checkIssued(issuer.native));
    found.push(...issued.filter((certificate) => !found.includes(certificate)));
  }
  return found;
}

type DomainChoice = Readonly<{ crls: readonly Buffer[]; fault: string | undefined; until: number }>;

function chooseForDomain(bundle: X509Bundle, authorities: readonly Certificate[], now: number): DomainChoice {
  const fit = new Set<Buffer>();
  let until = Number.POSITIVE_INFINITY;
  let fault: string | undefined;
  for (const authority of authorities) {
    const faults: string[] = [];
    let served = false;
    for (const crl of bundle.crls) {
      const fitness = fitnessOf(crl, authority, now);
      if (!fitness.fit) {
        until = Math.min(until, fitness.until);
        if (fitness.fault !== anotherIssuer) faults.push(fitness.fault);
      } else if (!fitness.namesKey && hasNamesake(authority, authorities)) {
        faults.push('without a key identifier, so that it is not told from that of another of the same name');
      } else if (fitness.until - crlMarginMs <= now) {
        faults.push('about to be out of date');
      } else {
        until = Math.min(until, fitness.until - crlMarginMs);
        fit.add(crl);
        served = true;
      }
    }
    const name = `authority "${authority.subject.slice(0, 200)}" (serial ${authority.serial.slice(0, 40)})`;
    if (!served) {
      fault ??= `${name} has no CRL${faults.length === 0 ? '' : ` but one that is ${faults[0]}`}`;
    } else if (!authorities.some(({ subjectDer }) => subjectDer.equals(authority.issuerDer))) {
      fault ??= `${name} was issued by one that is not held, so its own CRL cannot be either`;
    }
  }
  return { crls: [...fit], fault, until };
}

function hasNamesake({ subjectDer, publicKey }: Certificate, authorities: readonly Certificate[]): boolean {
  return authorities.some(
    (other) => other.subjectDer.equals(subjectDer) && !isSameKey(other.publicKey, publicKey),
  );
}
