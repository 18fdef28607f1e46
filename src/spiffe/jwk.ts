import { createPublicKey, type KeyObject } from 'node:crypto';
import type { JwtAuthority } from './bundle.ts';
import type { JsonObject } from './json.ts';

const curves: readonly unknown[] = ['P-256', 'P-384', 'P-521'];
const base64url = /^[A-Za-z0-9_-]{1,2048}$/;

/**
 * The JWT authority that a JWK describes, or undefined for one that cannot sign JWT-SVIDs (a type or curve that none of
 * the allowed algorithms uses) or is broken. Private members are left behind.
 */
export function parseJwtAuthority(jwk: JsonObject): JwtAuthority | undefined {
  const { kid, alg } = jwk;
  if (kid !== undefined && typeof kid !== 'string') return undefined;
  if (alg !== undefined && typeof alg !== 'string') return undefined;
  const key = publicMembers(jwk);
  const publicKey = key === undefined ? undefined : importKey(key);
  if (key === undefined || publicKey === undefined) return undefined;
  const keyId = kid ?? '';
  return Object.freeze({
    keyId,
    jwk: Object.freeze({
      ...key,
      ...(keyId === '' ? {} : { kid: keyId }),
      ...(alg === undefined ? {} : { alg }),
    }),
    publicKey,
  });
}

/** The public members of a key as a JWK, or undefined for a key that JWK has no form for. */
export function formatPublicJwk(publicKey: KeyObject): JsonObject | undefined {
  try {
    return { ...publicKey.export({ format: 'jwk' }) };
  } catch {
    return undefined;
  }
}

function publicMembers({ kty, n, e, crv, x, y }: JsonObject): Record<string, string> | undefined {
  if (kty === 'RSA' && isBase64url(n) && isBase64url(e)) return { kty, n, e };
  if (kty === 'EC' && typeof crv === 'string' && curves.includes(crv) && isBase64url(x) && isBase64url(y)) {
    return { kty, crv, x, y };
  }
  return undefined;
}

function isBase64url(value: unknown): value is string {
  return typeof value === 'string' && base64url.test(value);
}

function importKey(key: Record<string, string>): KeyObject | undefined {
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch {
    return undefined;
  }
}
