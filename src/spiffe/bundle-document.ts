import { LimitError, MalformedError } from '../runtime/errors.ts';
import type { JwtAuthority, JwtBundle, X509Bundle } from './bundle.ts';
import { type Certificate, parseCertificate } from './certificate.ts';
import { isJsonObject, type JsonObject, parseJsonObject } from './json.ts';
import { formatPublicJwk, parseJwtAuthority } from './jwk.ts';
import type { TrustDomain } from './spiffe-id.ts';

/** A SPIFFE bundle document (SPIFFE Trust Domain and Bundle §4): everything that one trust domain publishes. */
export type BundleDocument = Readonly<{
  x509: X509Bundle;
  jwt: JwtBundle;
  /** Up to 64 bits. */
  sequence?: bigint | undefined;
  refreshHintS?: number | undefined;
}>;

/** The longest document that is looked at, in UTF-16 units, and the most keys in it. */
const maxDocumentLength = 1024 * 1024;
const maxKeys = 1024;
const keyTypes: readonly unknown[] = ['RSA', 'EC', 'OKP'];
const maxSequence = 2n ** 64n - 1n;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/**
 * Parses the JWK Set that the Workload API sends as a JWT bundle. SPIRE leaves `use` out, so here it is optional. A key
 * of an unknown type or use, or a broken one, is dropped alone. Throws MalformedError for what is no JWK Set, LimitError
 * beyond 1 MiB or 1024 keys.
 */
export function parseJwks(text: string, trustDomain: TrustDomain): JwtBundle {
  const keys = parseKeys(parseDocument(text, trustDomain), trustDomain);
  // `sig` is what JOSE libraries write (RFC 7517 §4.2).
  const usable = keys.filter(({ use }) => use === undefined || use === 'jwt-svid' || use === 'sig');
  return jwtBundle(trustDomain, usable.map(parseJwtAuthority));
}

/**
 * Parses a SPIFFE bundle document. The trust domain comes from configuration, never from the document. A key without a
 * known `use`, of an unknown type, or broken is dropped alone; when nothing is left the domain trusts nothing (§4.1.3).
 * Throws MalformedError for what is no such document, duplicate members included, LimitError beyond 1 MiB or 1024 keys.
 */
export function parseBundleDocument(text: string, trustDomain: TrustDomain): BundleDocument {
  const document = parseDocument(text, trustDomain);
  const keys = parseKeys(document, trustDomain);
  const jwt = keys.filter(
    (key) => key['use'] === 'jwt-svid' && typeof key['kid'] === 'string' && key['kid'] !== '',
  );
  const authorities = keys.filter(({ use }) => use === 'x509-svid').map(parseX509Authority);
  return Object.freeze({
    x509: Object.freeze({ trustDomain, authorities: authorities.filter((a) => a !== undefined), crls: [] }),
    jwt: jwtBundle(trustDomain, jwt.map(parseJwtAuthority)),
    sequence: parseSequence(document['spiffe_sequence'], trustDomain),
    refreshHintS: parseRefreshHint(document['spiffe_refresh_hint'], trustDomain),
  });
}

/** A SPIFFE bundle document as JSON text: `x509-svid` entries without `kid`, `jwt-svid` entries with it. */
export function formatBundleDocument(document: BundleDocument): string {
  const { x509, jwt, sequence, refreshHintS } = document;
  const body = JSON.stringify({
    ...(refreshHintS === undefined ? {} : { spiffe_refresh_hint: refreshHintS }),
    keys: [
      ...x509.authorities.map(formatX509Authority).filter((key) => key !== undefined),
      // §4.2.3: a JWT authority without a key ID has no place in a SPIFFE bundle.
      ...jwt.authorities.filter(({ keyId }) => keyId !== '').map(({ jwk }) => ({ ...jwk, use: 'jwt-svid' })),
    ],
  });
  // JSON.stringify has no way to write a 64-bit integer.
  return sequence === undefined ? body : `{"spiffe_sequence":${sequence},${body.slice(1)}`;
}

/** A plain JWK Set as JSON text, as the Workload API and Envoy's jwt_authn expect it: no `use`. */
export function formatJwks(bundle: JwtBundle): string {
  return JSON.stringify({ keys: bundle.authorities.map(({ jwk }) => jwk) });
}

function parseDocument(text: string, trustDomain: TrustDomain): JsonObject {
  if (text.length > maxDocumentLength) {
    throw new LimitError(
      `bundle of trust domain ${trustDomain} is longer than ${maxDocumentLength} characters`,
    );
  }
  // spiffe_sequence may need 64 bits (§4.1.1).
  return parseJsonObject(text, `bundle of trust domain ${trustDomain}`, { exactIntegers: true });
}

function parseKeys(document: JsonObject, trustDomain: TrustDomain): readonly JsonObject[] {
  const keys: unknown = document['keys'];
  if (!Array.isArray(keys))
    throw new MalformedError(`bundle of trust domain ${trustDomain} has no list of keys`);
  if (keys.length > maxKeys)
    throw new LimitError(`bundle of trust domain ${trustDomain} has more than ${maxKeys} keys`);
  return keys.filter(isJsonObject);
}

function jwtBundle(trustDomain: TrustDomain, parsed: readonly (JwtAuthority | undefined)[]): JwtBundle {
  const authorities = parsed.filter((authority) => authority !== undefined);
  return Object.freeze({ trustDomain, authorities: Object.freeze(authorities) });
}

/** §4.2.2: `x5c` holds one certificate; of several the first counts. */
function parseX509Authority({ kty, x5c }: JsonObject): Certificate | undefined {
  if (!keyTypes.includes(kty)) return undefined;
  const first: unknown = Array.isArray(x5c) ? x5c[0] : undefined;
  if (typeof first !== 'string' || !base64.test(first)) return undefined;
  try {
    return parseCertificate(Buffer.from(first, 'base64'));
  } catch (error) {
    if (error instanceof MalformedError || error instanceof LimitError) return undefined;
    throw error;
  }
}

function formatX509Authority({ der, publicKey }: Certificate): JsonObject | undefined {
  const key = formatPublicJwk(publicKey);
  return key === undefined ? undefined : { use: 'x509-svid', ...key, x5c: [der.toString('base64')] };
}

function parseSequence(value: unknown, trustDomain: TrustDomain): bigint | undefined {
  if (value === undefined) return undefined;
  const sequence =
    typeof value === 'bigint' || Number.isSafeInteger(value) ? BigInt(value as bigint | number) : -1n;
  if (sequence < 0n || sequence > maxSequence) {
    throw new MalformedError(
      `bundle of trust domain ${trustDomain} has a spiffe_sequence that is no 64-bit integer`,
    );
  }
  return sequence;
}

function parseRefreshHint(value: unknown, trustDomain: TrustDomain): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new MalformedError(
      `bundle of trust domain ${trustDomain} has a spiffe_refresh_hint that is no whole number`,
    );
  }
  return value;
}
