import type { KeyObject } from 'node:crypto';
import { AppError, MalformedError } from '../runtime/errors.ts';
import type { JwtAuthority, JwtBundle, JwtBundleSet } from './bundle.ts';
import { signCompactJws, verifiesWithOneOf } from './jws.ts';
import { isRefusal, type JwtReason, type JwtRefusal, parseJwt } from './jwt-parse.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from './spiffe-id.ts';

/** A JWT-SVID as it was issued to us (JWT-SVID §3). `token` is a credential: never logged. */
export type JwtSvid = Readonly<{
  spiffeId: SpiffeId;
  audiences: readonly string[];
  token: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
  /** Milliseconds since the epoch; when the token has no iat, the time it was received. */
  issuedAt: number;
  hint: string;
  claims: Readonly<Record<string, unknown>>;
}>;

/** What a verification came to. Times are milliseconds since the epoch. */
export type JwtVerification =
  | Readonly<{
      valid: true;
      spiffeId: SpiffeId;
      trustDomain: TrustDomain;
      audiences: readonly string[];
      expiresAt: number;
      claims: Readonly<Record<string, unknown>>;
    }>
  | JwtRefusal;

/**
 * Reads a token that a source issued to this workload, without verifying it: whoever gave it is trusted, and its bundle
 * may not be here yet. `receivedAt` is in milliseconds. Throws MalformedError, which never quotes the token.
 */
export function decodeJwtSvid(token: string, hint: string, receivedAt: number): JwtSvid {
  const jwt = parseJwt(token);
  if (isRefusal(jwt)) throw new MalformedError(`JWT-SVID is malformed: ${jwt.message}`);
  const { spiffeId, audiences, expiresAt, issuedAt = receivedAt, claims } = jwt;
  return Object.freeze({ spiffeId, audiences, token, expiresAt, issuedAt, hint, claims });
}

/** Signs a JWT-SVID with ES256; whole seconds, as every reader understands. Times in milliseconds. */
export async function encodeJwtSvid(options: {
  spiffeId: SpiffeId;
  audiences: readonly string[];
  ttlMs: number;
  now: number;
  keyId: string;
  privateKey: KeyObject;
}): Promise<JwtSvid> {
  const { spiffeId, audiences, ttlMs, now, keyId, privateKey } = options;
  const claims = {
    sub: spiffeId,
    aud: audiences,
    iat: Math.floor(now / 1000),
    exp: Math.floor((now + ttlMs) / 1000),
  };
  const token = await signCompactJws(claims, keyId, privateKey);
  return decodeJwtSvid(token, '', now);
}

/**
 * Verifies a JWT-SVID from outside by JWT-SVID §4 and §6: its key comes from the bundle of its own trust domain only,
 * it is within its time at `now` (milliseconds) without leeway, and one of its audiences is among `audiences`. A token
 * that fails is a value with a reason; what throws is an empty `audiences`, an AppError `config`.
 */
export async function verifyJwtSvid(
  token: string,
  audiences: readonly string[],
  bundles: JwtBundleSet,
  now: number,
): Promise<JwtVerification> {
  if (audiences.length === 0 || audiences.includes('')) {
    throw new AppError('config', 'no audience is expected of JWT-SVIDs: name at least one');
  }
  const jwt = parseJwt(token);
  if (isRefusal(jwt)) return jwt;
  const trustDomain = trustDomainOf(jwt.spiffeId);
  const bundle = bundles.get(trustDomain);
  if (bundle === undefined)
    return refuse('unknown_trust_domain', `no JWT bundle of trust domain ${trustDomain} is held`);

  const { keyId, algorithm } = jwt;
  const named = keyId === undefined ? bundle.authorities : authoritiesOf(bundle, keyId);
  if (keyId !== undefined && named.length === 0) {
    return refuse(
      'unknown_key',
      `the JWT bundle of trust domain ${trustDomain} does not have the token's key`,
    );
  }
  if (!(await verifiesWithOneOf(token, named, algorithm))) {
    return refuse('bad_signature', `no key of trust domain ${trustDomain} that fits verifies the token`);
  }

  if (jwt.expiresAt <= now) return refuse('expired', 'token has expired');
  if (jwt.notBefore !== undefined && jwt.notBefore > now)
    return refuse('not_yet_valid', 'token is not valid yet');
  if (!jwt.audiences.some((audience) => audiences.includes(audience))) {
    return refuse('audience_mismatch', 'token is for another audience');
  }
  const { spiffeId, expiresAt, claims } = jwt;
  return { valid: true, spiffeId, trustDomain, audiences: jwt.audiences, expiresAt, claims };
}

function refuse(reason: JwtReason, message: string): JwtRefusal {
  return { valid: false, reason, message };
}

function authoritiesOf(bundle: JwtBundle, keyId: string): readonly JwtAuthority[] {
  return bundle.authorities.filter((authority) => authority.keyId === keyId);
}
