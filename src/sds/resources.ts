import { createHash } from 'node:crypto';
import type { Certificate } from '../spiffe/certificate.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import { idOfTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/spiffe-id.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { defaultSvid, type TrustSnapshot } from '../trust/snapshot.ts';
import { type CrlsByDomain, noCrls } from './crls.ts';
import { type Aliases, type NameKind, parseResourceName } from './names.ts';
import {
  encodeGenericSecret,
  encodeSpiffeValidator,
  encodeTlsCertificate,
  encodeTrustedCa,
  type Trust,
} from './secret.ts';

/** One named secret, encoded once and shared by every stream it goes to. */
export type Resource = Readonly<{
  name: string;
  kind: NameKind;
  /** A digest of the content: equal content has an equal version, in every stream and every process. */
  version: string;
  /** The Secret message. Holds a private key or a token for an SVID: never logged. */
  secret: Buffer;
  /** Milliseconds since the epoch; Infinity for bundles. */
  expiresAt: number;
  /** True when this stands in for trust that is no longer held: nothing satisfies it. */
  gone: boolean;
}>;

/** The resources of one snapshot, as one kind of Envoy is to see them. */
export interface ResourceView {
  /** The resource of that name, expired or not; undefined for a name that the snapshot does not answer. */
  find(name: string): Resource | undefined;
  /** What an empty list of names means: SVIDs by SPIFFE ID and bundles by trust domain ID, each once, no alias. */
  everything(): readonly Resource[];
  kindOf(name: string): NameKind;
}

/** The resources of one snapshot. */
export interface Catalog {
  /** False until an X.509 identity has been seen (bundles of partners may come first): there is nothing to judge names by. */
  readonly ready: boolean;
  view(spiffeValidator: boolean): ResourceView;
}

/** Trust domains of earlier snapshots of this process, so that the end of trust can be told to those who hold it. */
export type KnownDomains = Readonly<{ own: TrustDomain | undefined; all: ReadonlySet<TrustDomain> }>;

export type CatalogOptions = Aliases &
  Readonly<{
    /** The hint that picks the default SVID; undefined: the first. */
    defaultSvidHint: string | undefined;
  }>;

/** The JWT-SVIDs that may be served, by their audience. */
export type JwtSvidsByAudience = ReadonlyMap<string, JwtSvid>;

export const noJwtSvids: JwtSvidsByAudience = new Map();

export const noKnownDomains: KnownDomains = Object.freeze({ own: undefined, all: new Set<TrustDomain>() });

const maxKnownDomains = 4096;

/** The known domains after this snapshot; the longest known are forgotten beyond a bound. */
export function rememberDomains(known: KnownDomains, snapshot: TrustSnapshot): KnownDomains {
  const all = new Set([...known.all, ...snapshot.bundles.keys()]);
  for (const domain of all) {
    if (all.size <= maxKnownDomains) break;
    if (!snapshot.bundles.has(domain)) all.delete(domain);
  }
  return Object.freeze({ own: snapshot.trustDomain ?? known.own, all });
}

/**
 * The resources of a snapshot, with the JWT-SVIDs of its default identity; `known` includes its own domains
 * (`rememberDomains`) and `crls` are those that `chooseCrls` chose. `unsatisfiable` is the certificate of an authority whose key nobody has: it stands in wherever an
 * empty bundle would have to go out, because Envoy refuses an empty one and keeps its old trust.
 */
export function createCatalog(
  snapshot: TrustSnapshot,
  jwtSvids: JwtSvidsByAudience,
  known: KnownDomains,
  unsatisfiable: Certificate,
  options: CatalogOptions,
  crls: CrlsByDomain = noCrls,
): Catalog {
  const create = (spiffeValidator: boolean): ResourceView =>
    createView({ snapshot, jwtSvids, crls, known, unsatisfiable, options, spiffeValidator });
  const views = [create(false), create(true)] as const;
  return Object.freeze({
    ready: known.own !== undefined,
    view: (spiffeValidator) => (spiffeValidator ? views[1] : views[0]),
  } satisfies Catalog);
}

/** The version of an answer: a digest over the names and versions in it. */
export function answerVersion(resources: readonly Resource[]): string {
  return digest(resources.flatMap(({ name, version }) => [name, version]));
}

type ViewContext = Readonly<{
  snapshot: TrustSnapshot;
  jwtSvids: JwtSvidsByAudience;
  crls: CrlsByDomain;
  known: KnownDomains;
  unsatisfiable: Certificate;
  options: CatalogOptions;
  spiffeValidator: boolean;
}>;

function createView(context: ViewContext): ResourceView {
  const { snapshot, options } = context;
  // Only names with a resource are kept, so a client that asks for rubbish costs no memory.
  const built = new Map<string, Resource>();
  const svidsById = new Map<SpiffeId, X509Svid>();
  for (const svid of snapshot.svids) if (!svidsById.has(svid.spiffeId)) svidsById.set(svid.spiffeId, svid);

  function find(name: string): Resource | undefined {
    const known = built.get(name);
    if (known !== undefined) return known;
    const made = build(name);
    if (made !== undefined) built.set(name, made);
    return made;
  }

  function build(name: string): Resource | undefined {
    const parsed = parseResourceName(name, options);
    const { kind } = parsed;
    if (kind === 'default_svid')
      return svidResource(name, kind, defaultSvid(snapshot, options.defaultSvidHint));
    if (kind === 'hint') return svidResource(name, kind, svidWithHint(snapshot.svids, parsed.hint));
    if (kind === 'jwt_svid') return jwtSvidResource(context, name, parsed.audience);
    if (kind === 'spiffe_id') return svidResource(name, kind, svidsById.get(parsed.spiffeId));
    if (kind === 'default_bundle') return bundleResource(context, name, kind, context.known.own);
    if (kind === 'trust_domain') return bundleResource(context, name, kind, parsed.trustDomain);
    return kind === 'all_bundles' ? allBundlesResource(context, name) : undefined;
  }

  let everything: readonly Resource[] | undefined;
  function listEverything(): readonly Resource[] {
    const names = [...svidsById.keys(), ...[...snapshot.bundles.keys()].sort(compare).map(idOfTrustDomain)];
    return names.map(find).filter((resource) => resource !== undefined);
  }

  return Object.freeze({
    find,
    everything: () => (everything ??= listEverything()),
    kindOf: (name) => parseResourceName(name, options).kind,
  } satisfies ResourceView);
}

/** Workload API §5.2.1: of several SVIDs with one hint the first counts. */
function svidWithHint(svids: readonly X509Svid[], hint: string): X509Svid | undefined {
  return svids.find((svid) => svid.hint === hint);
}

function svidResource(name: string, kind: NameKind, svid: X509Svid | undefined): Resource | undefined {
  if (svid === undefined) return undefined;
  return Object.freeze({
    name,
    kind,
    // The key is left out: the leaf determines it, and nothing made from a key should end up in logs and stats.
    version: digest([name, 'svid', ...svid.chain.map((certificate) => certificate.fingerprint)]),
    secret: encodeTlsCertificate(name, svid),
    expiresAt: svid.chain[0].notAfter,
    gone: false,
  });
}

function jwtSvidResource(
  { snapshot, jwtSvids, options }: ViewContext,
  name: string,
  audience: string,
): Resource | undefined {
  const jwtSvid = jwtSvids.get(audience);
  const identity = defaultSvid(snapshot, options.defaultSvidHint)?.spiffeId;
  // Between two snapshots there may be a token of an identity that is the default no more.
  if (jwtSvid === undefined || jwtSvid.spiffeId !== identity) return undefined;
  const { token, expiresAt } = jwtSvid;
  return Object.freeze({
    name,
    kind: 'jwt_svid',
    // Versions are logged, so they are made of what is signed and not of the signature: that much proves nothing.
    version: digest([name, 'jwt', token.slice(0, token.lastIndexOf('.'))]),
    secret: encodeGenericSecret(name, token),
    expiresAt,
    gone: false,
  });
}

function bundleResource(
  context: ViewContext,
  name: string,
  kind: NameKind,
  trustDomain: TrustDomain | undefined,
): Resource | undefined {
  if (trustDomain === undefined) return undefined;
  const bundle = context.snapshot.bundles.get(trustDomain);
  if (bundle === undefined && !context.known.all.has(trustDomain)) return undefined;
  const authorities = inStableOrder(bundle?.authorities ?? []);
  const trusted =
    authorities.length > 0
      ? { trustDomain, authorities, crls: crlsOf(context, trustDomain) }
      : { trustDomain, authorities: [context.unsatisfiable] };
  return validationResource(context, name, kind, [trusted], bundle === undefined);
}

function allBundlesResource(context: ViewContext, name: string): Resource | undefined {
  // Authorities pooled in one trusted_ca could vouch for each other's trust domains.
  if (!context.spiffeValidator) return undefined;
  const trust = [...context.snapshot.bundles.values()]
    .filter((bundle) => bundle.authorities.length > 0)
    .map(({ trustDomain, authorities }) => ({
      trustDomain,
      authorities: inStableOrder(authorities),
      crls: crlsOf(context, trustDomain),
    }))
    .sort((a, b) => compare(a.trustDomain, b.trustDomain));
  if (trust.length > 0) return validationResource(context, name, 'all_bundles', trust, false);
  const [formerly] = [...context.known.all].sort(compare);
  if (formerly === undefined) return undefined;
  const nothing = [{ trustDomain: formerly, authorities: [context.unsatisfiable] }];
  return validationResource(context, name, 'all_bundles', nothing, context.snapshot.bundles.size === 0);
}

function validationResource(
  context: ViewContext,
  name: string,
  kind: NameKind,
  trust: Trust,
  gone: boolean,
): Resource {
  const secret = context.spiffeValidator
    ? encodeSpiffeValidator(name, trust)
    : encodeTrustedCa(
        name,
        trust.flatMap(({ authorities }) => authorities),
        trust.flatMap(({ crls = [] }) => crls),
      );
  return Object.freeze({
    name,
    kind,
    version: digest([name, 'bundle', secret]),
    secret,
    expiresAt: Number.POSITIVE_INFINITY,
    gone,
  });
}

/** Sources give authorities in any order and sometimes twice; neither may look like a change to Envoy. */
function inStableOrder(authorities: readonly Certificate[]): readonly Certificate[] {
  const unique = new Map(authorities.map((certificate) => [certificate.fingerprint, certificate]));
  return [...unique.values()].sort((a, b) => compare(a.fingerprint, b.fingerprint));
}

function crlsOf({ crls }: ViewContext, trustDomain: TrustDomain): readonly Buffer[] {
  const unique = new Map((crls.get(trustDomain) ?? []).map((crl) => [digest([crl]), crl]));
  return [...unique].sort(([a], [b]) => compare(a, b)).map(([, crl]) => crl);
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

const digestCharacters = 32;

/** A SHA-256 over the parts and their lengths, cut to 128 bits, in hex. */
function digest(parts: readonly (string | Buffer)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:`).update(part);
  return hash.digest('hex').slice(0, digestCharacters);
}
