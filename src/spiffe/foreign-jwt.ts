import { MalformedError } from '../runtime/errors.ts';
import type { JwtAuthority } from './bundle.ts';
import { verifiesWithOneOf } from './jws.ts';
import { parseAudiences, parseCompactJws, parseExpiry, parseTime } from './jwt-parse.ts';

/** What a JWT of an issuer outside SPIFFE has to be to be believed. */
export type ForeignJwtRules = Readonly<{
  issuer: string;
  audience: string;
  keys: readonly JwtAuthority[];
  /** Milliseconds since the epoch. */
  now: number;
}>;

/** `unknown_key`: newer keys of the issuer may verify the token. Messages never quote it. */
export type ForeignJwtVerification =
  | Readonly<{ valid: true; subject: string; expiresAt: number }>
  | Readonly<{ valid: false; reason: 'refused' | 'unknown_key'; message: string }>;

/**
 * Verifies a JWT of another issuer than a trust domain: signed with one of the nine asymmetric algorithms of JWT-SVID by
 * a key of `keys`, `iss` equal, `aud` among its audiences, `exp` there; without leeway. Never throws.
 */
export async function verifyForeignJwt(
  token: string,
  rules: ForeignJwtRules,
): Promise<ForeignJwtVerification> {
  try {
    return await verify(token, rules);
  } catch (error) {
    if (error instanceof MalformedError) return refused(error.message);
    throw error;
  }
}

async function verify(
  token: string,
  { issuer, audience, keys, now }: ForeignJwtRules,
): Promise<ForeignJwtVerification> {
  const { algorithm, keyId, claims } = parseCompactJws(token);
  // Cheap refusals come before the signature, but nothing of a token is believed before it.
  if (claims['iss'] !== issuer) return refused('token is of another issuer');
  const expiresAt = parseExpiry(claims['exp']);
  const notBefore = parseTime(claims['nbf'], 'nbf');
  const subject = claims['sub'];
  if (typeof subject !== 'string' || subject === '') return refused('token has no sub');
  if (!parseAudiences(claims['aud']).includes(audience)) return refused('token is for another audience');
  if (expiresAt <= now) return refused('token has expired');
  if (notBefore !== undefined && notBefore > now) return refused('token is not valid yet');

  const named = keyId === undefined ? keys : keys.filter((key) => key.keyId === keyId);
  if (named.length === 0) {
    return { valid: false, reason: 'unknown_key', message: "the issuer's keys do not have the token's key" };
  }
  if (await verifiesWithOneOf(token, named, algorithm)) return { valid: true, subject, expiresAt };
  return refused('no key of the issuer that fits verifies the token');
}

function refused(message: string): ForeignJwtVerification {
  return { valid: false, reason: 'refused', message };
}
