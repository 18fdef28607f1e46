import { constants, type KeyObject, verify } from 'node:crypto';
import { MalformedError } from '../../../runtime/errors.ts';
import { derTag } from '../../../spiffe/der.ts';
import { createDerCursor, type DerCursor, decodeInt64, decodeOidNumbers, enter } from '../der-cursor.ts';

/** A signature algorithm: its number in Go, and how it is verified; without a hash it is not. */
export type SignatureAlgorithm = Readonly<{
  number: number;
  keyType?: 'rsa' | 'ec' | 'ed25519';
  hash?: string | null;
  pss?: boolean;
}>;

const unknown: SignatureAlgorithm = Object.freeze({ number: 0 });

/** By OID. SHA-1 and MD5 have a number and nothing else: Go builds no chain with them. */
const algorithms: ReadonlyMap<string, SignatureAlgorithm> = new Map<string, SignatureAlgorithm>([
  ['1.2.840.113549.1.1.4', { number: 2 }],
  ['1.2.840.113549.1.1.5', { number: 3 }],
  ['1.3.14.3.2.29', { number: 3 }],
  ['1.2.840.113549.1.1.11', { number: 4, keyType: 'rsa', hash: 'sha256' }],
  ['1.2.840.113549.1.1.12', { number: 5, keyType: 'rsa', hash: 'sha384' }],
  ['1.2.840.113549.1.1.13', { number: 6, keyType: 'rsa', hash: 'sha512' }],
  ['1.2.840.10040.4.3', { number: 7 }],
  ['2.16.840.1.101.3.4.3.2', { number: 8 }],
  ['1.2.840.10045.4.1', { number: 9 }],
  ['1.2.840.10045.4.3.2', { number: 10, keyType: 'ec', hash: 'sha256' }],
  ['1.2.840.10045.4.3.3', { number: 11, keyType: 'ec', hash: 'sha384' }],
  ['1.2.840.10045.4.3.4', { number: 12, keyType: 'ec', hash: 'sha512' }],
]);
const pssByHash: ReadonlyMap<string, readonly [salt: bigint, algorithm: SignatureAlgorithm]> = new Map([
  ['2.16.840.1.101.3.4.2.1', [32n, { number: 13, keyType: 'rsa', hash: 'sha256', pss: true }]],
  ['2.16.840.1.101.3.4.2.2', [48n, { number: 14, keyType: 'rsa', hash: 'sha384', pss: true }]],
  ['2.16.840.1.101.3.4.2.3', [64n, { number: 15, keyType: 'rsa', hash: 'sha512', pss: true }]],
]);
const ed25519: SignatureAlgorithm = Object.freeze({ number: 16, keyType: 'ed25519', hash: null });
const nullTag = 0x05;

/** Reads the content of an AlgorithmIdentifier (RFC 5280 §4.1.1.2). Throws MalformedError. */
export function readSignatureAlgorithm(content: Buffer): SignatureAlgorithm {
  const fields = createDerCursor(content);
  const oid = decodeOidNumbers(fields.take(derTag.oid)).join('.');
  const parameters = fields.isEmpty() ? undefined : fields.any();
  if (oid === '1.3.101.112') return parameters === undefined ? ed25519 : unknown;
  if (oid !== '1.2.840.113549.1.1.10') return algorithms.get(oid) ?? unknown;
  if (parameters === undefined) return unknown;
  try {
    return readPss(enter(createDerCursor(parameters.raw)));
  } catch (error) {
    if (error instanceof MalformedError) return unknown;
    throw error;
  }
}

/** RFC 4055 §3.1: only where the two hashes are the same, and the salt has their length. */
function readPss(fields: DerCursor): SignatureAlgorithm {
  const hash = readHash(enter(enter(fields, 0xa0)));
  const generator = enter(enter(fields, 0xa1));
  const mask = decodeOidNumbers(generator.take(derTag.oid)).join('.');
  const maskHash = readHash(enter(generator));
  const salt = decodeInt64(enter(fields, 0xa2).take(derTag.integer).content);
  const trailer = fields.peek() === 0xa3 ? decodeInt64(enter(fields, 0xa3).take(derTag.integer).content) : 1n;
  const [wanted, algorithm] = pssByHash.get(hash) ?? [];
  const fits = mask === '1.2.840.113549.1.1.8' && maskHash === hash && salt === wanted && trailer === 1n;
  return (fits ? algorithm : undefined) ?? unknown;
}

function readHash(fields: DerCursor): string {
  const oid = decodeOidNumbers(fields.take(derTag.oid)).join('.');
  const parameters = fields.isEmpty() ? undefined : fields.any();
  return parameters === undefined || (parameters.tag === nullTag && parameters.content.length === 0)
    ? oid
    : '';
}

/** False for an algorithm that is weak or unknown, and for a key of another kind. Never throws. */
export function isSignedWith(
  { keyType, hash, pss = false }: SignatureAlgorithm,
  signed: Buffer,
  signature: Buffer,
  key: KeyObject | undefined,
): boolean {
  if (hash === undefined || key === undefined || key.asymmetricKeyType !== keyType) return false;
  const options = pss
    ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : key;
  try {
    return verify(hash, signed, options, signature);
  } catch {
    return false;
  }
}
