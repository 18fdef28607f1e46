import { LimitError } from '../../../runtime/errors.ts';
import { decodeTime, derTag } from '../../../spiffe/der.ts';
import { refuse } from '../args.ts';
import { createDerCursor, decodeAlignedBits, decodeInt64, decodeInteger, enter } from '../der-cursor.ts';
import type { Value } from '../value.ts';
import {
  type Extension,
  type ExtensionFields,
  readExtensionFields,
  readExtensionList,
} from './x509-extensions.ts';
import { type PublicKeyInfo, readPublicKey } from './x509-keys.ts';
import { readName } from './x509-name.ts';
import { readSignatureAlgorithm, type SignatureAlgorithm } from './x509-signature.ts';

/** A certificate with all that Go's x509.Certificate has. */
export type GoCertificate = Readonly<{
  raw: Buffer;
  rawTbs: Buffer;
  rawSpki: Buffer;
  rawSubject: Buffer;
  rawIssuer: Buffer;
  signature: Buffer;
  signatureAlgorithm: SignatureAlgorithm;
  publicKey: PublicKeyInfo;
  version: number;
  serial: bigint;
  issuer: Value;
  subject: Value;
  /** Milliseconds since the epoch. */
  notBefore: number;
  notAfter: number;
  extensions: readonly Extension[];
  fields: ExtensionFields;
}>;

const versionTag = 0xa0;
const extensionsTag = 0xa3;
const maxCertificates = 1_000;
const maxCertificateBytes = 64 * 1024;

/**
 * Certificates (DER, RFC 5280 §4.1) that stand one behind the other. As lenient as Go: what follows the last field of a
 * structure is passed over. Throws MalformedError; LimitError for more than a thousand, or one
 * of more than 64 KiB.
 */
export function readCertificates(bytes: Buffer): readonly GoCertificate[] {
  const certificates: GoCertificate[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (certificates.length === maxCertificates) throw new LimitError('text has too many certificates');
    const { raw } = createDerCursor(bytes.subarray(at)).take(derTag.sequence);
    if (raw.length > maxCertificateBytes) throw new LimitError('text has a certificate that is too long');
    const certificate = readCertificate(raw);
    certificates.push(certificate);
    at += certificate.raw.length;
  }
  return certificates;
}

function readCertificate(raw: Buffer): GoCertificate {
  const outer = enter(createDerCursor(raw));
  const { raw: rawTbs, content } = outer.take(derTag.sequence);
  const tbs = createDerCursor(content);
  const version = readVersion(tbs.optional(versionTag)?.content);
  const serial = decodeInteger(tbs.take(derTag.integer).content);
  if (serial < 0n) return refuse('serial number is negative');
  const algorithm = tbs.take(derTag.sequence);
  if (!outer.take(derTag.sequence).content.equals(algorithm.content)) {
    return refuse('certificate names two signature algorithms');
  }
  const rawIssuer = tbs.take(derTag.sequence).raw;
  const validity = enter(tbs);
  const [notBefore, notAfter] = [decodeTime(validity.any()), decodeTime(validity.any())];
  const rawSubject = tbs.take(derTag.sequence).raw;
  const rawSpki = tbs.take(derTag.sequence).raw;
  const parsed = {
    raw,
    rawTbs,
    rawSpki,
    rawSubject,
    rawIssuer,
    signatureAlgorithm: readSignatureAlgorithm(algorithm.content),
    issuer: readName(rawIssuer),
    subject: readName(rawSubject),
    publicKey: readPublicKey(rawSpki),
    version,
    serial,
    notBefore,
    notAfter,
  };
  const extensions = version === 3 ? readExtensions(tbs) : [];
  const signature = decodeAlignedBits(outer.take(derTag.bitString).content);
  return Object.freeze({ ...parsed, extensions, fields: readExtensionFields(extensions), signature });
}

function readVersion(explicit: Buffer | undefined): number {
  const version =
    explicit === undefined ? 0n : decodeInt64(createDerCursor(explicit).take(derTag.integer).content);
  return version >= 0n && version <= 2n ? Number(version) + 1 : refuse('version is not 1, 2 or 3');
}

function readExtensions(tbs: ReturnType<typeof createDerCursor>): readonly Extension[] {
  // issuerUniqueID and subjectUniqueID
  tbs.optional(0x81);
  tbs.optional(0x82);
  const explicit = tbs.optional(extensionsTag);
  return explicit === undefined ? [] : readExtensionList(enter(createDerCursor(explicit.content)));
}
