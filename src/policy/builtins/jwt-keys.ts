import {
  constants,
  createHmac,
  createPublicKey,
  type KeyObject,
  timingSafeEqual,
  verify,
  X509Certificate,
} from 'node:crypto';
import { LimitError } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { refuse } from './args.ts';

/** A key that signatures are verified with; `secret` is for HMAC. */
export type VerificationKey = Readonly<{
  alg: string;
  kid: string;
  key: KeyObject | undefined;
  secret: Buffer | undefined;
}>;

const hashes: Readonly<Record<string, string>> = { '256': 'sha256', '384': 'sha384', '512': 'sha512' };
const curves: Readonly<Record<string, string>> = {
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
};

export const algorithms: ReadonlySet<string> = new Set([
  ...['RS', 'PS', 'ES', 'HS'].flatMap((family) => Object.keys(hashes).map((size) => family + size)),
  'EdDSA',
]);

const maxKeyText = 1024 * 1024;
const maxKeys = 1_000;

/** Keys of a PEM certificate, a PEM public key, a JWK or a JWK set. Throws MalformedError. */
export function readKeys(written: string): readonly VerificationKey[] {
  if (written.length > maxKeyText) throw new LimitError('text of keys is too long');
  return written.includes('-----BEGIN ') ? [fromPem(written)] : fromJwks(written);
}

function fromPem(written: string): VerificationKey {
  const found = /-----BEGIN (CERTIFICATE|PUBLIC KEY)-----[\s\S]*?-----END \1-----\n?/.exec(written);
  if (found === null) return refuse('PEM holds neither a certificate nor a public key');
  if (found.index + found[0].length !== written.length) return refuse('extra data after a PEM block');
  const key = attempt(() =>
    found[1] === 'CERTIFICATE' ? new X509Certificate(found[0]).publicKey : createPublicKey(found[0]),
  );
  return { alg: '', kid: '', key, secret: undefined };
}

function fromJwks(written: string): readonly VerificationKey[] {
  const parsed = attempt(() => parseJson(written));
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isObject(parsed)) return refuse('keys are no JWK');
  const keys: readonly unknown[] = Array.isArray(parsed['keys']) ? parsed['keys'] : [parsed];
  if (keys.length > maxKeys) throw new LimitError('too many keys');
  return keys.flatMap((jwk): VerificationKey[] => {
    if (!isObject(jwk)) return refuse('keys are no JWK');
    const { alg = '', kid = '', kty, k } = jwk;
    if (typeof alg !== 'string' || typeof kid !== 'string') return refuse('keys are no JWK');
    if (alg !== '' && !algorithms.has(alg)) return [];
    if (kty === 'oct') {
      if (typeof k !== 'string') return refuse('JWK has no k');
      return [{ alg, kid, key: undefined, secret: Buffer.from(k, 'base64url') }];
    }
    const { kty: type, crv, n, e, x, y } = jwk;
    const key = attempt(() =>
      createPublicKey({ key: JSON.parse(JSON.stringify({ kty: type, crv, n, e, x, y })), format: 'jwk' }),
    );
    return [{ alg, kid, key, secret: undefined }];
  });
}

function attempt<T>(make: () => T): T {
  try {
    return make();
  } catch {
    // Not as a cause: it may quote the text, which may be a secret.
    return refuse('keys cannot be read');
  }
}

/** `loose`: any curve with any ES algorithm, as `io.jwt.verify_es256` and its like have it. */
export function verifies(
  key: VerificationKey,
  alg: string,
  signed: string,
  signature: Buffer,
  loose: boolean,
): boolean {
  const hash = hashes[alg.slice(2)] ?? null;
  if (alg.startsWith('HS'))
    return key.secret !== undefined && verifiesHmac(key.secret, alg, signed, signature);
  const { key: publicKey } = key;
  if (publicKey === undefined) return false;
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = publicKey;
  const data = Buffer.from(signed);
  try {
    if (alg === 'EdDSA') return type === 'ed25519' && verify(null, data, publicKey, signature);
    if (alg.startsWith('ES')) {
      if (type !== 'ec' || (!loose && details?.namedCurve !== curves[alg])) return false;
      return verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature);
    }
    if (type !== 'rsa' || (details?.modulusLength ?? 0) > 16_384) return false;
    const padding = alg.startsWith('PS') ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
    return verify(
      hash,
      data,
      { key: publicKey, padding, saltLength: constants.RSA_PSS_SALTLEN_AUTO },
      signature,
    );
  } catch {
    return false;
  }
}

export function verifiesHmac(secret: Buffer, alg: string, signed: string, signature: Buffer): boolean {
  const mac = createHmac(hashes[alg.slice(2)] ?? 'sha256', secret)
    .update(signed)
    .digest();
  return mac.length === signature.length && timingSafeEqual(mac, signature);
}
