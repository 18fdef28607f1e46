import { verify } from 'node:crypto';
import { MalformedError } from '../runtime/errors.ts';
import type { Certificate } from './certificate.ts';
import {
  type DerElement,
  decodeBoolean,
  decodeOid,
  decodeTime,
  decodeUnsignedHex,
  derTag,
  expectTag,
  readDer,
  readSingleDer,
  splitDer,
} from './der.ts';

/**
 * Whether a CRL can be relied on for all that an authority issues. That may change by itself at `until`, in milliseconds
 * since the epoch. `namesKey`: it tells its issuer from others of the same name.
 */
export type CrlFitness = Readonly<
  { fit: true; until: number; namesKey: boolean } | { fit: false; fault: string; until: number }
>;

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

/** The fault of a CRL that is none of the authority's. */
export const anotherIssuer = 'of another issuer';

const extensionsTag = 0xa0;
const authorityKeyIdentifier = '2.5.29.35';
const keyIdentifierTag = 0x80;
const crlNumber = '2.5.29.20';
/** Delta CRLs, and CRLs for one distribution point or for certificates of one kind. */
const partialLists: ReadonlySet<string> = new Set(['2.5.29.27', '2.5.29.28']);

/**
 * True when one of the CRLs (DER, RFC 5280 §5) names the certificate and is signed by its issuer. Only a hit is proof:
 * a CRL that is broken or of another issuer revokes nothing, none is ever required, and one that is out of date revokes
 * as before. Costs a search for bytes while the serial is on no list. Never throws.
 */
export function isRevoked(certificate: Certificate, issuer: Certificate, crls: readonly Buffer[]): boolean {
  if (crls.length === 0) return false;
  const serial = encodeSerial(certificate.serial);
  return crls.some((crl) => crl.includes(serial) && names(crl, serial, issuer));
}

/**
 * Whether a reader that demands a CRL for every certificate, as Envoy does, can rely on this one for what `authority`
 * has issued, at `now` (milliseconds): signed by it in a way that can be verified here, up to date, and plain, that is
 * without critical extensions, which make it say less or other things. Never throws.
 */
export function fitnessOf(crl: Buffer, authority: Certificate, now: number): CrlFitness {
  try {
    return judge(openCrl(crl), authority, now);
  } catch (error) {
    if (error instanceof MalformedError) return unfit('malformed');
    throw error;
  }
}

type OpenCrl = Readonly<{
  /** What is signed. */
  tbs: DerElement;
  issuer: DerElement;
  /** What follows the issuer: times, entries, extensions. */
  rest: readonly DerElement[];
  algorithm: string;
  signature: Buffer;
}>;

function openCrl(crl: Buffer): OpenCrl {
  const [tbs, algorithm, signature, ...others] = splitDer(readSingleDer(crl, derTag.sequence).content);
  if (others.length > 0) throw new MalformedError('CRL goes on behind its signature');
  const fields = [...splitDer(expectTag(tbs, derTag.sequence).content)];
  // version is optional; signature and issuer follow it.
  if (fields[0]?.tag === derTag.integer) fields.shift();
  const [innerAlgorithm, issuer, ...rest] = fields;
  const { content: bits } = expectTag(signature, derTag.bitString);
  // §5.1.1.2: the signed and the unsigned copy of the algorithm are the same; a signature is whole bytes.
  if (!expectTag(innerAlgorithm, derTag.sequence).raw.equals(expectTag(algorithm, derTag.sequence).raw)) {
    throw new MalformedError('CRL names two signature algorithms');
  }
  if (bits[0] !== 0) throw new MalformedError('CRL has a signature that is not whole bytes');
  return {
    tbs: expectTag(tbs, derTag.sequence),
    issuer: expectTag(issuer, derTag.sequence),
    rest,
    algorithm: decodeOid(expectTag(splitDer(innerAlgorithm?.content ?? Buffer.of())[0], derTag.oid).content),
    signature: bits.subarray(1),
  };
}

function judge(crl: OpenCrl, authority: Certificate, now: number): CrlFitness {
  if (!crl.issuer.raw.equals(authority.subjectDer)) return unfit(anotherIssuer);
  const signed = isSigned(crl, authority);
  if (signed === undefined) return unfit('signed in a way that is not known');
  // One of the same name, or nobody at all.
  if (!signed) return unfit(anotherIssuer);
  if (authority.keyUsage?.has('cRLSign') !== true) return unfit('of an issuer without the key usage cRLSign');
  const { from, until, extensions, keyId } = readStrictly(crl);
  if (extensions.some(({ critical }) => critical)) return unfit('with a critical extension');
  // Envoy acts on these even when they are not critical.
  if (extensions.some(({ oid }) => partialLists.has(oid)))
    return unfit('for a part of the certificates only');
  if (keyId !== undefined && keyId !== authority.subjectKeyId) {
    return unfit('not naming the key of its issuer as the issuer does');
  }
  if (from > now) return { fit: false, fault: 'not valid yet', until: from };
  return until > now ? { fit: true, until, namesKey: keyId !== undefined } : unfit('out of date');
}

type CrlExtension = Readonly<{ oid: string; critical: boolean; value: Buffer }>;

type CrlContent = Readonly<{
  from: number;
  until: number;
  extensions: readonly CrlExtension[];
  /** The authority key identifier, lower-case hex. */
  keyId: string | undefined;
}>;

/**
 * The whole of what `names` skips over. As strict as Envoy, which refuses a bundle with a CRL that it cannot read and
 * keeps its old trust: lists that may be left out when they are empty must be, and what it parses must be well-formed.
 */
function readStrictly({ rest }: OpenCrl): CrlContent {
  const fields = [...rest];
  const from = decodeTime(fields.shift());
  const isTime = fields[0]?.tag === derTag.utcTime || fields[0]?.tag === derTag.generalizedTime;
  const until = isTime ? decodeTime(fields.shift()) : Number.POSITIVE_INFINITY;
  const entries = fields[0]?.tag === derTag.sequence ? splitDer(fields.shift()?.content ?? Buffer.of()) : [];
  const own = fields.shift();
  if (fields.length > 0) throw new MalformedError('CRL goes on behind its extensions');
  const ofEntries = entries.flatMap((entry) => {
    const [serial, time, extensions, ...others] = splitDer(expectTag(entry, derTag.sequence).content);
    decodeUnsignedHex(expectTag(serial, derTag.integer).content);
    decodeTime(time);
    if (others.length > 0) throw new MalformedError('CRL has an entry with too many elements');
    return extensions === undefined ? [] : readExtensions(extensions);
  });
  const ofList =
    own === undefined
      ? []
      : readExtensions(readSingleDer(expectTag(own, extensionsTag).content, derTag.sequence));
  const key = ofList.find(({ oid }) => oid === authorityKeyIdentifier);
  return {
    from,
    until,
    extensions: [...ofList, ...ofEntries],
    keyId: key && readDer(readSingleDer(key.value, derTag.sequence).content).content.toString('hex'),
  };
}

function readExtensions(list: DerElement): readonly CrlExtension[] {
  const extensions = splitDer(expectTag(list, derTag.sequence).content).map((element) => {
    const parts = [...splitDer(expectTag(element, derTag.sequence).content)];
    const oid = decodeOid(expectTag(parts.shift(), derTag.oid).content);
    const critical =
      parts[0]?.tag === derTag.boolean ? decodeBoolean(parts.shift()?.content ?? Buffer.of()) : false;
    const { content } = expectTag(parts.shift(), derTag.octetString);
    if (parts.length > 0) throw new MalformedError('CRL has an extension with too many elements');
    checkKnownExtension(oid, content);
    return { oid, critical, value: content };
  });
  if (extensions.length === 0) throw new MalformedError('CRL has an empty list of extensions');
  if (new Set(extensions.map(({ oid }) => oid)).size < extensions.length) {
    throw new MalformedError('CRL has an extension twice');
  }
  return extensions;
}

/** Those that Envoy parses when it loads a CRL; of an authority key identifier, the form that names the key only. */
function checkKnownExtension(oid: string, value: Buffer): void {
  if (oid === authorityKeyIdentifier) {
    readSingleDer(readSingleDer(value, derTag.sequence).content, keyIdentifierTag);
  }
  if (oid === crlNumber) decodeUnsignedHex(readSingleDer(value, derTag.integer).content);
}

function unfit(fault: string): CrlFitness {
  return { fit: false, fault, until: Number.POSITIVE_INFINITY };
}

function names(der: Buffer, serial: Buffer, issuer: Certificate): boolean {
  try {
    const crl = openCrl(der);
    if (!crl.issuer.raw.equals(issuer.subjectDer)) return false;
    const listed = entriesOf(crl).some(({ content }) => splitDer(content)[0]?.raw.equals(serial) === true);
    // The source of the CRL is trusted with more than this; one that cannot be checked counts, or it would be in vain.
    return listed && isSigned(crl, issuer) !== false;
  } catch (error) {
    if (error instanceof MalformedError) return false;
    throw error;
  }
}

/** Behind the times, the list of entries is the only SEQUENCE; it is left out when it is empty. */
function entriesOf({ rest }: OpenCrl): readonly DerElement[] {
  return splitDer(rest.find(({ tag }) => tag === derTag.sequence)?.content ?? Buffer.of());
}

/** Undefined for an algorithm that is not known here. */
function isSigned({ algorithm, tbs, signature }: OpenCrl, issuer: Certificate): boolean | undefined {
  const hash = hashes.get(algorithm);
  if (hash === undefined) return undefined;
  try {
    return verify(hash, tbs.raw, issuer.publicKey, signature);
  } catch {
    // OpenSSL throws when the algorithm does not fit the key: then the CRL is another issuer's of the same name.
    return false;
  }
}

function encodeSerial(hex: string): Buffer {
  const even = hex.length % 2 === 0 ? hex : `0${hex}`;
  const bytes = Buffer.from(even, 'hex');
  const content = (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes;
  return Buffer.concat([Buffer.of(derTag.integer, content.length), content]);
}
