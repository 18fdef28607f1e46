import type { KeyObject } from 'node:crypto';
import { CompactSign, compactVerify } from 'jose';
import type { JwtAuthority } from './bundle.ts';
import type { JwtAlgorithm } from './jwt-parse.ts';

/** Keys that are tried for one token that names none. */
const maxKeys = 16;
const minRsaBits = 2048;

const curves: Readonly<Partial<Record<JwtAlgorithm, string>>> = Object.freeze({
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
});

/** Signs claims with ES256, in compact form. */
export function signCompactJws(claims: object, keyId: string, privateKey: KeyObject): Promise<string> {
  return new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({ alg: 'ES256', kid: keyId, typ: 'JWT' })
    .sign(privateKey);
}

/** True when one of `keys` that fits `algorithm` verifies the token; at most 16 are tried. */
export async function verifiesWithOneOf(
  token: string,
  keys: readonly JwtAuthority[],
  algorithm: JwtAlgorithm,
): Promise<boolean> {
  for (const { publicKey } of keys.filter((key) => fits(key, algorithm)).slice(0, maxKeys)) {
    try {
      await compactVerify(token, publicKey, { algorithms: [algorithm] });
      return true;
    } catch {
      // Another key may fit; that none does is the caller's outcome.
    }
  }
  return false;
}

/** RFC 7518 §3: the key's type, its curve or length, and its own `alg` when it names one. */
function fits({ jwk, publicKey }: JwtAuthority, algorithm: JwtAlgorithm): boolean {
  if (jwk['alg'] !== undefined && jwk['alg'] !== algorithm) return false;
  const { namedCurve, modulusLength = 0 } = publicKey.asymmetricKeyDetails ?? {};
  const curve = curves[algorithm];
  return curve === undefined
    ? publicKey.asymmetricKeyType === 'rsa' && modulusLength >= minRsaBits
    : publicKey.asymmetricKeyType === 'ec' && namedCurve === curve;
}
