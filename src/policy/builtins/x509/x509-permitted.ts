import { isIP } from 'node:net';
import { boundedCount } from '../args.ts';
import { splitHost } from '../go-url.ts';
import { isDomain } from './x509-alternative-names.ts';
import type { GoCertificate } from './x509-certificate.ts';
import { type Mailbox, parseMailbox } from './x509-mailbox.ts';
import type { Network, Subtrees } from './x509-name-constraints.ts';

type Names = Readonly<{
  dns: readonly string[];
  emails: readonly Mailbox[];
  addresses: readonly Buffer[];
  uriDomains: readonly string[];
}>;

/**
 * True when the names of every certificate satisfy the constraints of all above it (RFC 5280 §4.2.1.10); the leaf comes
 * first. A name that cannot be compared satisfies none.
 */
export function permitsNames(chain: readonly GoCertificate[]): boolean {
  return chain.every((certificate, index) => {
    const constraints = chain.slice(index + 1).flatMap(({ fields }) => fields.nameConstraints ?? []);
    if (constraints.length === 0 || certificate.fields.namesValue === undefined) return true;
    const names = comparableNames(certificate);
    if (names === undefined) return false;
    return constraints.every(({ permitted, excluded }) => {
      boundedCount(sizeOf(names) * (sizeOf(permitted) + sizeOf(excluded)));
      return isPlainNetworks(permitted) && isPlainNetworks(excluded) && satisfies(names, permitted, excluded);
    });
  });
}

function sizeOf(lists: Names | Subtrees): number {
  return Object.values(lists).reduce((sum, list) => sum + list.length, 0);
}

function comparableNames({ fields: { names } }: GoCertificate): Names | undefined {
  const emails = names.emails.map(parseMailbox).filter((mailbox) => mailbox !== undefined);
  const uriDomains = names.urls.map(({ host }) => uriDomain(host)).filter((domain) => domain !== undefined);
  if (emails.length < names.emails.length || uriDomains.length < names.urls.length) return undefined;
  const domains = [...names.dns, ...emails.map(({ domain }) => domain), ...uriDomains];
  if (!domains.every((domain) => isDomain(domain))) return undefined;
  return {
    dns: names.dns,
    emails: emails.map(({ local, domain }) => ({ local, domain: domain.toLowerCase() })),
    addresses: names.addresses,
    uriDomains,
  };
}

/** Undefined for a URI without a host, or with an address as its host. */
function uriDomain(host: string): string | undefined {
  const lower = host.toLowerCase();
  if (lower === '' || lower.endsWith(']')) return undefined;
  const { hostname } = splitHost(lower);
  return isIP(hostname) === 0 && !hostname.includes(':') ? hostname : undefined;
}

/** Go's search among networks needs addresses that are zero where their masks are; others are not compared here. */
function isPlainNetworks({ networks }: Subtrees): boolean {
  return networks.every(({ address, mask }) =>
    address.every((byte, index) => (byte & ~(mask[index] ?? 0) & 0xff) === 0),
  );
}

function satisfies(names: Names, permitted: Subtrees, excluded: Subtrees): boolean {
  const check = <Name, Base>(
    list: readonly Name[],
    allowed: readonly Base[],
    refused: readonly Base[],
    matches: (base: Base, name: Name) => boolean,
    alsoRefused: (base: Base, name: Name) => boolean = () => false,
  ): boolean =>
    list.every(
      (name) =>
        (allowed.length === 0 || allowed.some((base) => matches(base, name))) &&
        !refused.some((base) => matches(base, name) || alsoRefused(base, name)),
    );
  return (
    check(names.addresses, permitted.networks, excluded.networks, isInside) &&
    check(names.dns, permitted.dns, excluded.dns, isBelow, isWildcardBeside) &&
    check(names.uriDomains, permitted.uriDomains, excluded.uriDomains, isBelow, isWildcardBeside) &&
    check(names.emails, permitted.emails, excluded.emails, isOfMailbox, (base, { domain }) =>
      isWildcardBeside(base, domain),
    )
  );
}

function isInside({ address, mask }: Network, candidate: Buffer): boolean {
  return (
    candidate.length === address.length &&
    candidate.every((byte, index) => (byte & (mask[index] ?? 0)) === address[index])
  );
}

/** True for the domain itself and those below it; only for these with a leading dot. */
function isBelow(base: string, name: string): boolean {
  const [lower, suffix] = [name.toLowerCase(), base.toLowerCase()];
  return suffix === '' || lower === suffix || lower.endsWith(suffix.startsWith('.') ? suffix : `.${suffix}`);
}

/** `*.example.com` stands for names that the exclusion of `a.example.com` is about. */
function isWildcardBeside(base: string, name: string): boolean {
  const dot = base.indexOf('.');
  return (
    name.startsWith('*') &&
    dot >= 0 &&
    base.slice(dot).toLowerCase() === name.slice(name.indexOf('.')).toLowerCase()
  );
}

function isOfMailbox(base: string, { local, domain }: Mailbox): boolean {
  if (!base.includes('@')) return isBelow(base, domain);
  const wanted = parseMailbox(base);
  return wanted?.local === local && wanted.domain.toLowerCase() === domain;
}
