import { decodeJwtSvid, type JwtSvid } from '../../src/spiffe/jwt-svid.ts';
import type { SpiffeId } from '../../src/spiffe/spiffe-id.ts';

/** A token of any header and claims, with a signature that proves nothing. */
export function unsignedToken(header: object, claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part(header)}.${part(claims)}.c2lnbmF0dXJl`;
}

/** A JWT-SVID made at once: signing takes real time, which a manual clock does not wait for. Times in milliseconds. */
export function unsignedJwtSvid(options: {
  audience: string;
  spiffeId: SpiffeId;
  now: number;
  ttlMs: number;
  jti?: string;
}): JwtSvid {
  const { audience, spiffeId, now, ttlMs, jti } = options;
  const iat = Math.floor(now / 1000);
  const claims = { sub: spiffeId, aud: [audience], iat, exp: iat + ttlMs / 1000, jti };
  return decodeJwtSvid(unsignedToken({ alg: 'ES256' }, claims), '', now);
}
