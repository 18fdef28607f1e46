import { createPrivateKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { derTag } from '../../spiffe/der.ts';
import { refuse, whole } from './args.ts';
import { createDerCursor, decodeInteger, enter } from './der-cursor.ts';
import type { PemBlock } from './pem-blocks.ts';
import type { Value } from './value.ts';

const maxKeys = 100;
const maxKeyBytes = 64 * 1024;

type Encoding = 'pkcs1' | 'pkcs8' | 'sec1';

/** What follows the version tells the encodings apart, of which OpenSSL takes one for another. */
const secondTags: Readonly<Record<Encoding, number>> = {
  pkcs1: derTag.integer,
  pkcs8: derTag.sequence,
  sec1: derTag.octetString,
};
const encodings: ReadonlyMap<string, Encoding> = new Map([
  ['RSA PRIVATE KEY', 'pkcs1'],
  ['PRIVATE KEY', 'pkcs8'],
  ['EC PRIVATE KEY', 'sec1'],
]);
const curves: ReadonlySet<string | undefined> = new Set([
  'secp224r1',
  'prime256v1',
  'secp384r1',
  'secp521r1',
]);

/** The private keys among PEM blocks; blocks of other types are passed over. Throws MalformedError for one that is broken. */
export function readPrivateKeys(blocks: readonly PemBlock[]): readonly KeyObject[] {
  const keys = blocks.flatMap(({ type, der }) => {
    const encoding = encodings.get(type);
    return encoding === undefined ? [] : [readPrivateKey(der, encoding)];
  });
  if (keys.length > maxKeys) throw new LimitError('text has too many private keys');
  return keys;
}

/** A private key in any of the encodings, tried in Go's order. Throws MalformedError. */
export function readAnyPrivateKey(der: Buffer): KeyObject {
  for (const encoding of encodings.values()) {
    try {
      return readPrivateKey(der, encoding);
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
    }
  }
  return refuse('private key cannot be read');
}

function readPrivateKey(der: Buffer, type: Encoding): KeyObject {
  if (der.length > maxKeyBytes) throw new LimitError('private key is too long');
  const fields = enter(createDerCursor(der));
  fields.take(derTag.integer);
  fields.take(secondTags[type]);
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: der, format: 'der', type });
  } catch {
    // Not as a cause: it may quote the key.
    return refuse('private key cannot be read');
  }
  const { asymmetricKeyType: kind, asymmetricKeyDetails: details } = key;
  if (kind === 'rsa' && (type === 'sec1' || !hasSoundNumbers(key)))
    return refuse('private key cannot be read');
  if (kind === 'ec' && !curves.has(details?.namedCurve)) return refuse('private key is on an unknown curve');
  return kind === 'rsa' || kind === 'ec' || kind === 'ed25519'
    ? key
    : refuse('private key is of an unknown kind');
}

/** OpenSSL takes what it is given; Go checks that the numbers of an RSA key belong together. */
function hasSoundNumbers(key: KeyObject): boolean {
  const { n, e, d, p, q, dp, dq, qi } = rsaNumbers(key);
  return (
    n.toString(2).length >= 1024 &&
    p * q === n &&
    (d * e) % (p - 1n) === 1n &&
    (d * e) % (q - 1n) === 1n &&
    dp === d % (p - 1n) &&
    dq === d % (q - 1n) &&
    (qi * q) % p === 1n
  );
}

function rsaNumbers(key: KeyObject): Record<'n' | 'e' | 'd' | 'p' | 'q' | 'dp' | 'dq' | 'qi', bigint> {
  // Not as JWK, which leaves out what a key with more than two primes has besides.
  const fields = enter(createDerCursor(key.export({ type: 'pkcs1', format: 'der' })));
  const take = (): bigint => decodeInteger(fields.take(derTag.integer).content);
  if (take() !== 0n) return refuse('private key has more than two primes');
  const [n, e, d, p, q, dp, dq, qi] = [take(), take(), take(), take(), take(), take(), take(), take()];
  return { n, e, d, p, q, dp, dq, qi };
}

/** The key as Go's JSON of its type. */
export function privateKeyJson(key: KeyObject): Value {
  if (key.asymmetricKeyType === 'rsa') {
    const { n, e, d, p, q, dp, dq, qi } = rsaNumbers(key);
    const precomputed = new Map<Value, Value>([
      ['Dp', whole(dp)],
      ['Dq', whole(dq)],
      ['Qinv', whole(qi)],
      ['CRTValues', []],
    ]);
    return new Map<Value, Value>([
      ['N', whole(n)],
      ['E', whole(e)],
      ['D', whole(d)],
      ['Primes', [whole(p), whole(q)]],
      ['Precomputed', precomputed],
    ]);
  }
  const { x = '', y = '', d = '' } = key.export({ format: 'jwk' });
  if (key.asymmetricKeyType === 'ed25519') return Buffer.concat([bytesOf(d), bytesOf(x)]).toString('base64');
  const number = (written: string): Value => whole(BigInt(`0x${bytesOf(written).toString('hex')}`));
  return new Map<Value, Value>([
    ['Curve', new Map()],
    ['X', number(x)],
    ['Y', number(y)],
    ['D', number(d)],
  ]);
}

function bytesOf(base64url: string): Buffer {
  return Buffer.from(base64url, 'base64url');
}

/** The key as a JWK. Throws MalformedError for one on a curve that has no name there. */
export function privateKeyJwk(key: KeyObject): Value {
  let jwk: JsonWebKey;
  try {
    jwk = key.export({ format: 'jwk' });
  } catch {
    return refuse('private key has no JWK');
  }
  return new Map(Object.entries(jwk) as [string, string][]);
}
