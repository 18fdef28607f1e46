import { MalformedError } from '../runtime/errors.ts';
import {
  type DerElement,
  decodeBoolean,
  decodeNamedBits,
  decodeOid,
  decodeUnsignedHex,
  derTag,
  expectTag,
  readSingleDer,
  splitDer,
} from './der.ts';
import { decodeNameConstraints, type NameConstraints } from './name-constraints.ts';

/** What a certificate's extensions say (RFC 5280 §4.2), as far as identity and path validation need it. */
export type Extensions = Readonly<{
  uriSans: readonly string[];
  dnsSans: readonly string[];
  /** The GeneralName tags (RFC 5280 §4.2.1.6: 1 rfc822Name, 2 dNSName, 6 URI, …) of all subject alternative names. */
  sanTypes: ReadonlySet<number>;
  /** basicConstraints cA; false when the extension is absent. */
  isCa: boolean;
  pathLength: number | undefined;
  /** keyUsage bits by their RFC 5280 names; undefined when the extension is absent. */
  keyUsage: ReadonlySet<string> | undefined;
  /** extKeyUsage OIDs; undefined when the extension is absent. */
  extendedKeyUsage: ReadonlySet<string> | undefined;
  /** Lower-case hex; undefined when the extension is absent. */
  subjectKeyId: string | undefined;
  nameConstraints: NameConstraints | undefined;
  /** OIDs of critical extensions that this program does not know. */
  unknownCriticalExtensions: readonly string[];
}>;

const oids = Object.freeze({
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  authorityKeyIdentifier: '2.5.29.35',
  subjectKeyIdentifier: '2.5.29.14',
  extendedKeyUsage: '2.5.29.37',
});

// Policies may be known without being looked at: no policy is required of a path, so none can fail (RFC 5280 §6.1.1 e).
const known: ReadonlySet<string> = new Set(Object.values(oids));

const keyUsageNames = Object.freeze([
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
]);

const contextTagBits = 0x1f;
const dnsTag = 2;
const uriTag = 6;
const maxPathLength = 255;
/** Room for bits that may be defined one day. */
const maxKeyUsageBytes = 16;

/** Decodes the Extensions SEQUENCE; `undefined` for a certificate that has none. Throws MalformedError. */
export function decodeExtensions(der: Buffer | undefined): Extensions {
  const values = new Map<string, Buffer>();
  const unknownCriticalExtensions: string[] = [];
  for (const element of der === undefined ? [] : splitDer(readSingleDer(der, derTag.sequence).content)) {
    const { oid, critical, value } = decodeExtension(element);
    // RFC 5280 §4.2: not more than one of a kind. Readers disagree which of two counts.
    if (values.has(oid)) throw new MalformedError(`extension ${oid} occurs twice`);
    values.set(oid, value);
    if (critical && !known.has(oid)) unknownCriticalExtensions.push(oid);
  }
  const alternativeNames = decodeList(values.get(oids.subjectAltName)) ?? [];
  const namesOf = (tag: number): readonly string[] =>
    alternativeNames
      .filter((name) => (name.tag & contextTagBits) === tag)
      .map((name) => name.content.toString('latin1'));
  return {
    uriSans: namesOf(uriTag),
    dnsSans: namesOf(dnsTag),
    sanTypes: new Set(alternativeNames.map((name) => name.tag & contextTagBits)),
    ...decodeBasicConstraints(values.get(oids.basicConstraints)),
    keyUsage: decodeKeyUsage(values.get(oids.keyUsage)),
    extendedKeyUsage: decodeExtendedKeyUsage(values.get(oids.extendedKeyUsage)),
    subjectKeyId: decodeKeyId(values.get(oids.subjectKeyIdentifier)),
    nameConstraints: decodeNameConstraints(values.get(oids.nameConstraints)),
    unknownCriticalExtensions,
  };
}

function decodeExtension(element: DerElement) {
  const parts = [...splitDer(expectTag(element, derTag.sequence).content)];
  const oid = decodeOid(expectTag(parts.shift(), derTag.oid).content);
  const critical =
    parts[0]?.tag === derTag.boolean ? decodeBoolean(parts.shift()?.content ?? Buffer.of()) : false;
  const value = expectTag(parts.shift(), derTag.octetString).content;
  if (parts.length > 0) throw new MalformedError(`extension ${oid} has more than a value`);
  return { oid, critical, value };
}

function decodeList(der: Buffer | undefined): readonly DerElement[] | undefined {
  return der === undefined ? undefined : splitDer(readSingleDer(der, derTag.sequence).content);
}

function decodeBasicConstraints(der: Buffer | undefined) {
  const parts = [...(decodeList(der) ?? [])];
  const isCa =
    parts[0]?.tag === derTag.boolean ? decodeBoolean(parts.shift()?.content ?? Buffer.of()) : false;
  const length = parts.shift();
  if (parts.length > 0) throw new MalformedError('basic constraints have too many elements');
  if (length === undefined) return { isCa, pathLength: undefined };
  const pathLength = Number.parseInt(decodeUnsignedHex(expectTag(length, derTag.integer).content), 16);
  return { isCa, pathLength: Math.min(pathLength, maxPathLength) };
}

function decodeKeyUsage(der: Buffer | undefined): ReadonlySet<string> | undefined {
  if (der === undefined) return undefined;
  const { content } = readSingleDer(der, derTag.bitString);
  // RFC 5280 §4.2.1.3: nine bits; each of half a million would be looked at.
  if (content.length > maxKeyUsageBytes) throw new MalformedError('key usage has too many bits');
  const bits = decodeNamedBits(content);
  return new Set(keyUsageNames.filter((_, bit) => bits.has(bit)));
}

function decodeKeyId(der: Buffer | undefined): string | undefined {
  return der === undefined ? undefined : readSingleDer(der, derTag.octetString).content.toString('hex');
}

function decodeExtendedKeyUsage(der: Buffer | undefined): ReadonlySet<string> | undefined {
  const purposes = decodeList(der);
  if (purposes === undefined) return undefined;
  return new Set(purposes.map((purpose) => decodeOid(expectTag(purpose, derTag.oid).content)));
}
