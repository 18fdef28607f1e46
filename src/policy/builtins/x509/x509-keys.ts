import { createPublicKey, type KeyObject } from 'node:crypto';
import { derTag } from '../../../spiffe/der.ts';
import { refuse, whole } from '../args.ts';
import {
  createDerCursor,
  decodeAlignedBits,
  decodeInt64,
  decodeInteger,
  decodeOidNumbers,
  encodeSequence,
  enter,
} from '../der-cursor.ts';
import type { Value } from '../value.ts';

/** A public key as a certificate has it. */
export type PublicKeyInfo = Readonly<{
  /** Go's number of the algorithm; 0 for one that Go has no name for. */
  algorithm: number;
  /** The key as JSON of Go's type; null when the algorithm is unknown. */
  json: Value;
  /** Undefined for a key that no signature is verified with here. */
  key: KeyObject | undefined;
}>;

const unknown: PublicKeyInfo = Object.freeze({ algorithm: 0, json: null, key: undefined });
const nullTag = 0x05;
const curves: ReadonlySet<string> = new Set([
  '1.3.132.0.33',
  '1.2.840.10045.3.1.7',
  '1.3.132.0.34',
  '1.3.132.0.35',
]);
const minRsaBits = 1024;
const maxRsaBits = 16_384;

/** Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7). Throws MalformedError for a key that Go refuses. */
export function readPublicKey(spki: Buffer): PublicKeyInfo {
  const fields = enter(createDerCursor(spki));
  const identifier = enter(fields);
  const algorithm = identifier.take(derTag.oid);
  const oid = decodeOidNumbers(algorithm).join('.');
  const parameters = identifier.isEmpty() ? undefined : identifier.any();
  const written = fields.take(derTag.bitString);
  const data = decodeAlignedBits(written.content);
  // Without what may follow the elements, which OpenSSL does not take.
  const plain = encodeSequence(encodeSequence(algorithm.raw, parameters?.raw ?? Buffer.of()), written.raw);
  if (oid === '1.2.840.113549.1.1.1') {
    if (parameters?.tag !== nullTag || parameters.content.length > 0)
      return refuse('RSA key has other parameters than NULL');
    return readRsa(data, plain);
  }
  if (oid === '1.2.840.10045.2.1') {
    const curve = parameters === undefined ? '' : decodeOidNumbers(parameters).join('.');
    return curves.has(curve) && data[0] === 4
      ? readEc(data, plain)
      : refuse('key is on no curve that is known');
  }
  if (oid === '1.3.101.112') {
    if (parameters !== undefined || data.length !== 32) return refuse('Ed25519 key is broken');
    return { algorithm: 4, json: data.toString('base64'), key: importKey(plain) };
  }
  return oid === '1.2.840.10040.4.1' ? readDsa(data, parameters?.raw ?? Buffer.of()) : unknown;
}

function readRsa(data: Buffer, spki: Buffer): PublicKeyInfo {
  const numbers = enter(createDerCursor(data));
  const modulus = decodeInteger(numbers.take(derTag.integer).content);
  const exponent = decodeInt64(numbers.take(derTag.integer).content);
  if (modulus <= 0n || exponent <= 0n) return refuse('RSA key has a number that is not positive');
  const bits = modulus.toString(2).length;
  // What Go reads, but verifies nothing with.
  const usable =
    bits >= minRsaBits && bits <= maxRsaBits && exponent % 2n === 1n && exponent > 1n && exponent < 1n << 31n;
  const json = new Map<Value, Value>([
    ['N', whole(modulus)],
    ['E', whole(exponent)],
  ]);
  return { algorithm: 1, json, key: usable ? importKey(spki) : undefined };
}

function readEc(data: Buffer, spki: Buffer): PublicKeyInfo {
  const key = importKey(spki);
  const size = (data.length - 1) / 2;
  const coordinate = (at: number): Value => whole(BigInt(`0x${data.toString('hex', at, at + size)}`));
  const json = new Map<Value, Value>([
    ['Curve', new Map()],
    ['X', coordinate(1)],
    ['Y', coordinate(1 + size)],
  ]);
  return { algorithm: 3, json, key };
}

function readDsa(data: Buffer, parameters: Buffer): PublicKeyInfo {
  const domain = enter(createDerCursor(parameters));
  const take = (): bigint => decodeInteger(domain.take(derTag.integer).content);
  const [P, Q, G] = [take(), take(), take()];
  const numbers = { P, Q, G, Y: decodeInteger(createDerCursor(data).take(derTag.integer).content) };
  const entries = Object.entries(numbers);
  if (entries.some(([, number]) => number <= 0n)) return refuse('DSA key has a number that is not positive');
  return {
    algorithm: 2,
    json: new Map(entries.map(([name, number]) => [name, whole(number)])),
    key: undefined,
  };
}

function importKey(spki: Buffer): KeyObject {
  try {
    return createPublicKey({ key: spki, format: 'der', type: 'spki' });
  } catch {
    return refuse('public key cannot be read');
  }
}
