import { decodeOid, derTag, expectTag, readSingleDer, splitDer } from './der.ts';

/** RSA PKCS #1 and ECDSA with SHA-2 of 256 bits or more, Ed25519, Ed448 (RFC 4055, RFC 5758, RFC 8410). */
const strong: ReadonlySet<string> = new Set([
  '1.2.840.113549.1.1.11',
  '1.2.840.113549.1.1.12',
  '1.2.840.113549.1.1.13',
  '1.2.840.10045.4.3.2',
  '1.2.840.10045.4.3.3',
  '1.2.840.10045.4.3.4',
  '1.3.101.112',
  '1.3.101.113',
]);
const rsaPss = '1.2.840.113549.1.1.10';
const strongHashes: ReadonlySet<string> = new Set([
  '2.16.840.1.101.3.4.2.1',
  '2.16.840.1.101.3.4.2.2',
  '2.16.840.1.101.3.4.2.3',
]);
const hashTag = 0xa0;

/**
 * True when the certificate (DER, parsed before) is signed over a hash without known collisions. A list of the good,
 * because the bad have many names: SHA-1 has six, and RSASSA-PSS means SHA-1 where its parameters leave the hash out.
 */
export function isStronglySigned(certificateDer: Buffer): boolean {
  const [, algorithm] = splitDer(readSingleDer(certificateDer, derTag.sequence).content);
  const [oid, parameters] = splitDer(expectTag(algorithm, derTag.sequence).content);
  const name = decodeOid(expectTag(oid, derTag.oid).content);
  if (name !== rsaPss) return strong.has(name);
  const hash = splitDer(expectTag(parameters, derTag.sequence).content).find(({ tag }) => tag === hashTag);
  if (hash === undefined) return false;
  const [hashOid] = splitDer(readSingleDer(hash.content, derTag.sequence).content);
  return strongHashes.has(decodeOid(expectTag(hashOid, derTag.oid).content));
}
