import { messageCodec } from '../grpc/protos.ts';
import { LimitError, MalformedError, toAppError } from '../runtime/errors.ts';
import type { JwtBundle, JwtBundleSet, X509Bundle, X509BundleSet } from '../spiffe/bundle.ts';
import { parseJwks } from '../spiffe/bundle-document.ts';
import { type Certificate, parseCertificates } from '../spiffe/certificate.ts';
import { decodeJwtSvid, type JwtSvid } from '../spiffe/jwt-svid.ts';
import { parseTrustDomain, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import { parseX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import { crlIssuerDer } from './crl.ts';
import type { JwtSvidRequest } from './identity-source.ts';

/** The largest message taken: some thousand certificates, well above gRPC's 4 MiB default. */
export const maxMessageBytes = 16 * 1024 * 1024;
const maxSvids = 1_000;
const maxTrustDomains = 1_000;
const maxAuthorities = 1_000;
const maxCrls = 1_000;

const x509Response = messageCodec('X509SVIDResponse');
const jwtBundlesResponse = messageCodec('JWTBundlesResponse');
const jwtSvidResponse = messageCodec('JWTSVIDResponse');

/**
 * Decodes an X509SVIDResponse. A mandatory field that is empty, a limit passed or anything that does not parse refuses
 * the whole message (Workload API §4.5). Of several SVIDs with the same hint the first is kept; the bundle an SVID
 * brings wins over a federated one of the same domain; an empty federated bundle means to trust nothing of its domain.
 * Throws AppError.
 */
export function decodeX509Context(bytes: Buffer, now: number): X509Context {
  const message = x509Response.decode(bytes);
  bound(message.svids.length, maxSvids, 'X509-SVIDs');
  for (const svid of message.svids) {
    if (svid.spiffeId === '') throw new MalformedError('an X509-SVID of the message has no SPIFFE ID');
    if (svid.x509Svid.length === 0) throw emptyField(svid.spiffeId, 'certificate');
    if (svid.x509SvidKey.length === 0) throw emptyField(svid.spiffeId, 'private key');
    if (svid.bundle.length === 0) throw emptyField(svid.spiffeId, 'bundle');
  }
  const bundles = new Map<TrustDomain, readonly Certificate[]>();
  const parsed = firstOfEachHint(message.svids).map((svid): X509Svid => {
    const x509Svid = within(svid.spiffeId, () =>
      parseX509Svid(
        {
          spiffeId: svid.spiffeId,
          chainDer: svid.x509Svid,
          privateKeyDer: svid.x509SvidKey,
          hint: svid.hint,
        },
        now,
      ),
    );
    const trustDomain = trustDomainOf(x509Svid.spiffeId);
    if (!bundles.has(trustDomain)) {
      bundles.set(
        trustDomain,
        within(trustDomain, () => parseCertificates(svid.bundle, maxAuthorities)),
      );
    }
    return x509Svid;
  });
  const [first, ...others] = parsed;
  if (first === undefined) throw new MalformedError('the message has no X509-SVID');
  for (const [trustDomain, der] of byTrustDomain(message.federatedBundles)) {
    if (bundles.has(trustDomain)) continue;
    bundles.set(
      trustDomain,
      within(trustDomain, () => parseCertificates(der, maxAuthorities)),
    );
  }
  return Object.freeze({
    svids: Object.freeze([first, ...others] as const),
    bundles: withCrls(bundles, parsed, message.crl),
  });
}

/**
 * Decodes a JWTBundlesResponse: at least one bundle, each a JWKS in which `use` may be absent, as SPIRE sends it.
 * Throws AppError.
 */
export function decodeJwtBundles(bytes: Buffer): JwtBundleSet {
  const bundles = new Map<TrustDomain, JwtBundle>();
  for (const [trustDomain, jwks] of byTrustDomain(jwtBundlesResponse.decode(bytes).bundles)) {
    bundles.set(
      trustDomain,
      within(trustDomain, () => parseJwks(utf8(jwks), trustDomain)),
    );
  }
  if (bundles.size === 0) throw new MalformedError('the message has no JWT bundle');
  return bundles;
}

/**
 * Decodes a JWTSVIDResponse to `request`: at least one JWT-SVID, each with the subject the message states for it, good
 * for every audience asked for and, when an ID was asked for, of exactly that ID. Throws AppError.
 */
export function decodeJwtSvids(bytes: Buffer, request: JwtSvidRequest, now: number): readonly JwtSvid[] {
  const { svids } = jwtSvidResponse.decode(bytes);
  bound(svids.length, maxSvids, 'JWT-SVIDs');
  if (svids.length === 0) throw new MalformedError('the message has no JWT-SVID');
  for (const { spiffeId, svid } of svids) {
    if (spiffeId === '') throw new MalformedError('a JWT-SVID of the message has no SPIFFE ID');
    if (svid === '') throw emptyField(spiffeId, 'token');
  }
  return Object.freeze(
    firstOfEachHint(svids).map(({ spiffeId, svid, hint }) =>
      within(spiffeId, () => {
        const jwtSvid = decodeJwtSvid(svid, hint, now);
        if (jwtSvid.spiffeId !== spiffeId) throw new MalformedError('the token has another subject');
        if (request.spiffeId !== undefined && spiffeId !== request.spiffeId) {
          throw new MalformedError(`it was not asked for (${request.spiffeId} was)`);
        }
        if (!request.audiences.every((audience) => jwtSvid.audiences.includes(audience))) {
          throw new MalformedError('the token lacks an audience that was asked for');
        }
        if (jwtSvid.expiresAt <= now) throw new MalformedError('the token has expired');
        return jwtSvid;
      }),
    ),
  );
}

/** Workload API §8: hints are unique, and a client that sees one twice uses the first. */
function firstOfEachHint<T extends { readonly hint: string }>(svids: readonly T[]): readonly T[] {
  const seen = new Set<string>();
  return svids.filter(({ hint }) => {
    if (hint === '') return true;
    if (seen.has(hint)) return false;
    seen.add(hint);
    return true;
  });
}

/** Keys are `spiffe://td` by the standard and bare names with some servers; the same domain twice is refused. */
function* byTrustDomain(map: Readonly<Record<string, Buffer>>): Iterable<[TrustDomain, Buffer]> {
  const entries = Object.entries(map);
  bound(entries.length, maxTrustDomains, 'trust domains');
  const seen = new Set<TrustDomain>();
  for (const [key, value] of entries) {
    const trustDomain = within('a key of the bundle map', () => parseTrustDomain(key));
    if (seen.has(trustDomain)) throw new MalformedError(`the message has two bundles for ${trustDomain}`);
    seen.add(trustDomain);
    yield [trustDomain, value];
  }
}

/**
 * Gives each CRL to the bundles one of whose authorities has its issuer's name. One of nobody's is an intermediate's: it
 * goes to the domains of our SVIDs, who have intermediates of theirs, and whom it harms in nothing if it is not theirs.
 */
function withCrls(
  bundles: ReadonlyMap<TrustDomain, readonly Certificate[]>,
  svids: readonly X509Svid[],
  crls: readonly Buffer[],
): X509BundleSet {
  bound(crls.length, maxCrls, 'CRLs');
  const isOf = (issuer: Buffer, authorities: readonly Certificate[]): boolean =>
    authorities.some(({ subjectDer }) => subjectDer.equals(issuer));
  const own = new Set(svids.map(({ spiffeId }) => trustDomainOf(spiffeId)));
  const issued = crls.map((der) => ({ der, issuer: within('a CRL', () => crlIssuerDer(der)) }));
  const nobodys = issued.filter(({ issuer }) => ![...bundles.values()].some((all) => isOf(issuer, all)));
  const result = new Map<TrustDomain, X509Bundle>();
  for (const [trustDomain, authorities] of bundles) {
    const found = [
      ...issued.filter(({ issuer }) => isOf(issuer, authorities)),
      ...(own.has(trustDomain) ? nobodys : []),
    ];
    result.set(
      trustDomain,
      Object.freeze({ trustDomain, authorities, crls: Object.freeze(found.map(({ der }) => der)) }),
    );
  }
  return result;
}

function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new MalformedError('not UTF-8', { cause });
  }
}

/** Says where in the message the fault is; the text of parsers is ours and holds no key or token. */
function within<T>(where: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    const { code, message } = toAppError(error);
    const text = `${where.slice(0, 300)}: ${message}`;
    throw code === 'limit_exceeded'
      ? new LimitError(text, { cause: error })
      : new MalformedError(text, { cause: error });
  }
}

function bound(count: number, max: number, what: string): void {
  if (count > max) throw new LimitError(`the message has ${count} ${what}, at most ${max} are taken`);
}

function emptyField(spiffeId: string, field: string): MalformedError {
  return new MalformedError(`${spiffeId.slice(0, 300)}: the ${field} is empty`);
}
