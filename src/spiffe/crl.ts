import { verify } from 'node:crypto';
import { MalformedError } from '../runtime/errors.ts';
import type { Certificate } from './certificate.ts';
import { decodeOid, derTag, expectTag, readSingleDer, splitDer } from './der.ts';

/** Hashes by signature algorithm (RFC 5758, RFC 4055, RFC 8410); null where the key alone says it. */
const hashes: ReadonlyMap<string, string | null> = new Map([
  ['1.2.840.10045.4.3.2', 'sha256'],
  ['1.2.840.10045.4.3.3', 'sha384'],
  ['1.2.840.10045.4.3.4', 'sha512'],
  ['1.2.840.113549.1.1.11', 'sha256'],
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
  ['1.3.101.112', null],
]);

/**
 * True when one of the CRLs (DER, RFC 5280 §5) names the certificate and is signed by its issuer. Only a hit is proof:
 * a CRL that is broken, out of date or of another issuer revokes nothing, and none is ever required. Costs a search for
 * bytes while the serial is on no list. Never throws.
 */
export function isRevoked(certificate: Certificate, issuer: Certificate, crls: readonly Buffer[]): boolean {
  if (crls.length === 0) return false;
  const serial = encodeSerial(certificate.serial);
  return crls.some((crl) => crl.includes(serial) && names(crl, serial, issuer));
}

function names(crl: Buffer, serial: Buffer, issuer: Certificate): boolean {
  try {
    const [tbs, algorithm, signature] = splitDer(readSingleDer(crl, derTag.sequence).content);
    const signed = expectTag(tbs, derTag.sequence);
    const fields = [...splitDer(signed.content)];
    if (fields[0]?.tag === derTag.integer) fields.shift();
    const [, name, ...rest] = fields;
    if (!expectTag(name, derTag.sequence).raw.equals(issuer.subjectDer)) return false;
    // Behind the times, the list of entries is the only SEQUENCE; it is left out when it is empty.
    const entries = rest.find(({ tag }) => tag === derTag.sequence);
    const listed = splitDer(entries?.content ?? Buffer.of()).some(
      ({ content }) => splitDer(content)[0]?.raw.equals(serial) === true,
    );
    return listed && isSigned(signed.raw, algorithmOf(algorithm?.content), signature?.content, issuer);
  } catch (error) {
    if (error instanceof MalformedError) return false;
    throw error;
  }
}

function isSigned(
  signed: Buffer,
  algorithm: string,
  signature: Buffer | undefined,
  issuer: Certificate,
): boolean {
  const hash = hashes.get(algorithm);
  // The source of the CRL is trusted with more than this; one that cannot be checked counts, or it would be in vain.
  if (hash === undefined || signature === undefined) return true;
  try {
    return verify(hash, signed, issuer.publicKey, signature.subarray(1));
  } catch {
    // OpenSSL throws when the algorithm does not fit the key: then the CRL is another issuer's of the same name.
    return false;
  }
}

function algorithmOf(content: Buffer | undefined): string {
  return decodeOid(expectTag(splitDer(content ?? Buffer.of())[0], derTag.oid).content);
}

function encodeSerial(hex: string): Buffer {
  const even = hex.length % 2 === 0 ? hex : `0${hex}`;
  const bytes = Buffer.from(even, 'hex');
  const content = (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes;
  return Buffer.concat([Buffer.of(derTag.integer, content.length), content]);
}
