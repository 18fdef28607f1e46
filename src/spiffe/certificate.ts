import { hash, type KeyObject, X509Certificate } from 'node:crypto';
import { LimitError, MalformedError } from '../runtime/errors.ts';
import {
  type DerElement,
  decodeTime,
  decodeUnsignedHex,
  derTag,
  expectTag,
  readSingleDer,
  splitDer,
} from './der.ts';
import { decodePem, encodePem } from './pem.ts';
import { decodeExtensions, type Extensions } from './x509-extensions.ts';

/** A parsed X.509 certificate: only what identity needs, read from the DER once. */
export type Certificate = Extensions &
  Readonly<{
    /** Exactly as received. */
    der: Buffer;
    /** SHA-256 over the DER, lower-case hex. */
    fingerprint: string;
    /** Lower-case hex, without leading zeros. */
    serial: string;
    /** RFC 4514 text, for people. */
    subject: string;
    issuer: string;
    /** DER of the names, for comparing issuer with subject. */
    subjectDer: Buffer;
    issuerDer: Buffer;
    /** Milliseconds since the epoch. */
    notBefore: number;
    notAfter: number;
    publicKey: KeyObject;
    /** Node's own view, for checkIssued and verify. */
    native: X509Certificate;
  }>;

/** The longest certificate that is looked at, in bytes. */
const maxCertificateBytes = 64 * 1024;

const versionTag = 0xa0;
const uniqueIdTags: readonly number[] = [0x81, 0x82];
const extensionsTag = 0xa3;

/**
 * Parses one certificate in DER (RFC 5280 §4.1), nothing before or behind it. Throws MalformedError, or LimitError for
 * more than 64 KiB. Keeps a copy of the bytes, so a network buffer may be reused.
 */
export function parseCertificate(der: Buffer): Certificate {
  if (der.length > maxCertificateBytes) {
    throw new LimitError(`certificate is longer than ${maxCertificateBytes} bytes`);
  }
  const bytes = Buffer.from(der);
  try {
    return Object.freeze({ ...decodeFields(bytes), ...decodeNative(bytes) });
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw new MalformedError(`certificate is malformed: ${error.message}`, { cause: error });
  }
}

/**
 * Parses certificates that stand one behind the other without a separator, as the Workload API sends them. No bytes are
 * no certificates. Throws MalformedError, or LimitError beyond `maxCount`.
 */
export function parseCertificates(concatenatedDer: Buffer, maxCount: number): readonly Certificate[] {
  return splitDer(concatenatedDer, maxCount).map((element) => parseCertificate(element.raw));
}

/**
 * Parses every CERTIFICATE block of a PEM text; empty text has none. Throws MalformedError when the text holds anything
 * else, LimitError beyond `maxCount`.
 */
export function parsePemCertificates(pem: string, maxCount: number): readonly Certificate[] {
  return decodePem(pem, 'CERTIFICATE', maxCount, maxCertificateBytes).map(parseCertificate);
}

/** One PEM block for each certificate, in order, with a newline behind each. */
export function encodeCertificatesPem(certs: readonly Certificate[]): Buffer {
  return Buffer.concat(certs.map((certificate) => encodePem('CERTIFICATE', certificate.der)));
}

/** A PKCS#8 private key as PEM. The result is a secret. */
export function encodePrivateKeyPem(pkcs8Der: Buffer): Buffer {
  return encodePem('PRIVATE KEY', pkcs8Der);
}

/** A CRL in DER as PEM. */
export function encodeCrlPem(der: Buffer): Buffer {
  return encodePem('X509 CRL', der);
}

function decodeFields(bytes: Buffer) {
  const [tbs, outerAlgorithm, signature, ...rest] = splitDer(readSingleDer(bytes, derTag.sequence).content);
  expectTag(signature, derTag.bitString);
  if (rest.length > 0) throw new MalformedError('elements follow the signature');
  const fields = [...splitDer(expectTag(tbs, derTag.sequence).content)];

  const version = fields[0]?.tag === versionTag ? decodeVersion(fields.shift()) : 1;
  const serial = decodeUnsignedHex(expectTag(fields.shift(), derTag.integer).content);
  const algorithm = expectTag(fields.shift(), derTag.sequence);
  // RFC 5280 §4.1.1.2: the signed and the unsigned copy of the algorithm must be the same.
  if (!algorithm.raw.equals(expectTag(outerAlgorithm, derTag.sequence).raw)) {
    throw new MalformedError('it names two signature algorithms');
  }
  const issuer = expectTag(fields.shift(), derTag.sequence);
  const [notBefore, notAfter] = splitDer(expectTag(fields.shift(), derTag.sequence).content);
  const subject = expectTag(fields.shift(), derTag.sequence);
  expectTag(fields.shift(), derTag.sequence);
  while (fields[0] !== undefined && uniqueIdTags.includes(fields[0].tag)) fields.shift();
  const extensions = fields.shift();
  if (fields.length > 0) throw new MalformedError('elements follow the extensions');
  if (extensions !== undefined && version !== 3)
    throw new MalformedError('only version 3 may have extensions');

  return {
    serial,
    subjectDer: subject.raw,
    issuerDer: issuer.raw,
    notBefore: decodeTime(notBefore),
    notAfter: decodeTime(notAfter),
    ...decodeExtensions(extensions === undefined ? undefined : expectTag(extensions, extensionsTag).content),
  };
}

function decodeVersion(element: DerElement | undefined): number {
  const content = readSingleDer(expectTag(element, versionTag).content, derTag.integer).content;
  const version = Number.parseInt(decodeUnsignedHex(content), 16) + 1;
  if (version !== 2 && version !== 3) throw new MalformedError(`version ${version} is not 1, 2 or 3`);
  return version;
}

function decodeNative(bytes: Buffer) {
  let native: X509Certificate;
  let publicKey: KeyObject;
  try {
    native = new X509Certificate(bytes);
    publicKey = native.publicKey;
  } catch (error) {
    throw new MalformedError('it or its public key cannot be read', { cause: error });
  }
  return {
    der: bytes,
    fingerprint: hash('sha256', bytes, 'hex'),
    subject: nameText(native.subject),
    issuer: nameText(native.issuer),
    publicKey,
    native,
  };
}

/** Node writes one escaped RDN a line, first one first; RFC 4514 §2.1 wants them reversed, with commas. */
function nameText(name: string | undefined): string {
  return (name ?? '').split('\n').reverse().join(',');
}
