import { decodeBoolean, derTag } from '../../../spiffe/der.ts';
import { refuse } from '../args.ts';
import {
  createDerCursor,
  type DerCursor,
  decodeArcs,
  decodeBits,
  decodeInt64,
  decodeOidNumbers,
  enter,
} from '../der-cursor.ts';
import { textOfBytes } from '../go-text.ts';
import { type AlternativeNames, isEmpty, noNames, readAlternativeNames } from './x509-alternative-names.ts';
import { type NameConstraints, readNameConstraints } from './x509-name-constraints.ts';

/** One extension as it stands in the certificate (RFC 5280 §4.2). */
export type Extension = Readonly<{ id: readonly number[]; critical: boolean; value: Buffer }>;

/** A policy constraint: how many more certificates it leaves free. */
export type SkipCount = bigint | undefined;

/** What Go reads out of a certificate's extensions. */
export type ExtensionFields = Readonly<{
  /** Bits of the key usage; 0 without one. */
  keyUsage: number;
  /** Go's numbers of the purposes it knows. */
  extKeyUsage: readonly number[];
  unknownExtKeyUsage: readonly (readonly number[])[];
  basicConstraints: Readonly<{ isCa: boolean; maxPathLength: bigint }> | undefined;
  subjectKeyId: Buffer | undefined;
  authorityKeyId: Buffer | undefined;
  names: AlternativeNames;
  /** The extension itself, whatever it names. */
  namesValue: Buffer | undefined;
  nameConstraints: (NameConstraints & Readonly<{ critical: boolean }>) | undefined;
  crlDistributionPoints: readonly string[];
  ocspServers: readonly string[];
  issuingCertificateUrls: readonly string[];
  /** Contents of the OIDs; undefined without the extension. */
  policies: readonly Buffer[] | undefined;
  policyMappings: readonly Readonly<{ issuer: Buffer; subject: Buffer }>[];
  requireExplicitPolicy: SkipCount;
  inhibitPolicyMapping: SkipCount;
  inhibitAnyPolicy: SkipCount;
  unhandledCritical: readonly (readonly number[])[];
}>;

type Draft = { -readonly [Field in keyof ExtensionFields]: ExtensionFields[Field] };

/** Reads an Extensions SEQUENCE's elements. Throws MalformedError. */
export function readExtensionList(list: DerCursor): readonly Extension[] {
  const extensions: Extension[] = [];
  const seen = new Set<string>();
  while (!list.isEmpty()) {
    const extension = readExtension(enter(list));
    const oid = extension.id.join('.');
    if (seen.has(oid)) return refuse('certificate has an extension twice');
    seen.add(oid);
    extensions.push(extension);
  }
  return extensions;
}

function readExtension(parts: DerCursor): Extension {
  const id = decodeOidNumbers(parts.take(derTag.oid));
  const flag = parts.optional(derTag.boolean);
  return {
    id,
    critical: flag !== undefined && decodeBoolean(flag.content),
    value: parts.take(derTag.octetString).content,
  };
}

/** Reads what each extension says. Throws MalformedError where Go refuses the certificate. */
export function readExtensionFields(extensions: readonly Extension[]): ExtensionFields {
  const fields: Draft = {
    keyUsage: 0,
    extKeyUsage: [],
    unknownExtKeyUsage: [],
    basicConstraints: undefined,
    subjectKeyId: undefined,
    authorityKeyId: undefined,
    names: noNames,
    namesValue: undefined,
    nameConstraints: undefined,
    crlDistributionPoints: [],
    ocspServers: [],
    issuingCertificateUrls: [],
    policies: undefined,
    policyMappings: [],
    requireExplicitPolicy: undefined,
    inhibitPolicyMapping: undefined,
    inhibitAnyPolicy: undefined,
    unhandledCritical: [],
  };
  for (const extension of extensions) {
    const read = readers.get(extension.id.join('.'));
    const handled = read?.(extension, fields) ?? read !== undefined;
    if (extension.critical && !handled)
      fields.unhandledCritical = [...fields.unhandledCritical, extension.id];
  }
  return fields;
}

/** Fills in the draft; false when it does not understand all of the extension. */
type Reader = (extension: Extension, fields: Draft) => boolean | undefined | void;

const explicitTags = Object.freeze({ zero: 0xa0, one: 0xa1 });
const implicitTags = Object.freeze({ zero: 0x80, one: 0x81, uri: 0x86 });

const readers: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  [
    '2.5.29.15',
    ({ value }, fields) => {
      const { bytes } = decodeBits(createDerCursor(value).take(derTag.bitString).content);
      for (let bit = 0; bit < 9; bit++) {
        if (((bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0) fields.keyUsage |= 1 << bit;
      }
    },
  ],
  [
    '2.5.29.19',
    ({ value }, fields) => {
      const parts = enter(createDerCursor(value));
      const flag = parts.optional(derTag.boolean);
      const length = parts.optional(derTag.integer);
      const maxPathLength = length === undefined ? -1n : decodeInt64(length.content);
      if (length !== undefined && maxPathLength < 0n) refuse('path length is negative');
      fields.basicConstraints = { isCa: flag !== undefined && decodeBoolean(flag.content), maxPathLength };
    },
  ],
  [
    '2.5.29.17',
    ({ value }, fields) => {
      fields.names = readAlternativeNames(value);
      fields.namesValue = value;
      return !isEmpty(fields.names);
    },
  ],
  [
    '2.5.29.30',
    ({ value, critical }, fields) => {
      fields.nameConstraints = { ...readNameConstraints(value), critical };
      return !fields.nameConstraints.unhandled;
    },
  ],
  ['2.5.29.31', ({ value }, fields) => void (fields.crlDistributionPoints = readDistributionPoints(value))],
  [
    '2.5.29.35',
    ({ value, critical }, fields) => {
      if (critical) refuse('authority key identifier is critical');
      fields.authorityKeyId = enter(createDerCursor(value)).optional(implicitTags.zero)?.content;
    },
  ],
  [
    '2.5.29.14',
    ({ value, critical }, fields) => {
      if (critical) refuse('subject key identifier is critical');
      fields.subjectKeyId = createDerCursor(value).take(derTag.octetString).content;
    },
  ],
  [
    '2.5.29.36',
    ({ value }, fields) => {
      const parts = enter(createDerCursor(value));
      const explicit = parts.optional(implicitTags.zero);
      const mapping = parts.optional(implicitTags.one);
      if (explicit !== undefined) fields.requireExplicitPolicy = decodeInt64(explicit.content);
      if (mapping !== undefined) fields.inhibitPolicyMapping = decodeInt64(mapping.content);
    },
  ],
  [
    '2.5.29.54',
    ({ value }, fields) => {
      fields.inhibitAnyPolicy = decodeInt64(createDerCursor(value).take(derTag.integer).content);
    },
  ],
  [
    '2.5.29.37',
    ({ value }, fields) => {
      const known: number[] = [];
      const unknown: (readonly number[])[] = [];
      const purposes = enter(createDerCursor(value));
      while (!purposes.isEmpty()) {
        const oid = decodeOidNumbers(purposes.take(derTag.oid));
        const number = extKeyUsageOids.indexOf(oid.join('.'));
        if (number >= 0) known.push(number);
        else unknown.push(oid);
      }
      fields.extKeyUsage = known;
      fields.unknownExtKeyUsage = unknown;
    },
  ],
  ['2.5.29.32', ({ value }, fields) => void (fields.policies = readPolicies(value))],
  [
    '2.5.29.33',
    ({ value }, fields) => {
      const mappings = enter(createDerCursor(value));
      const found: { issuer: Buffer; subject: Buffer }[] = [];
      while (!mappings.isEmpty()) {
        const pair = enter(mappings);
        found.push({ issuer: pair.take(derTag.oid).content, subject: pair.take(derTag.oid).content });
      }
      fields.policyMappings = found;
    },
  ],
  ['1.3.6.1.5.5.7.1.1', ({ value, critical }, fields) => readAccess(value, critical, fields)],
]);

/** Purposes (RFC 5280 §4.2.1.12 and vendors' own) in the order of Go's numbers. */
const extKeyUsageOids: readonly string[] = [
  '2.5.29.37.0',
  '1.3.6.1.5.5.7.3.1',
  '1.3.6.1.5.5.7.3.2',
  '1.3.6.1.5.5.7.3.3',
  '1.3.6.1.5.5.7.3.4',
  '1.3.6.1.5.5.7.3.5',
  '1.3.6.1.5.5.7.3.6',
  '1.3.6.1.5.5.7.3.7',
  '1.3.6.1.5.5.7.3.8',
  '1.3.6.1.5.5.7.3.9',
  '1.3.6.1.4.1.311.10.3.3',
  '2.16.840.1.113730.4.1',
  '1.3.6.1.4.1.311.2.1.22',
  '1.3.6.1.4.1.311.61.1.1',
];

function readDistributionPoints(value: Buffer): readonly string[] {
  const urls: string[] = [];
  const points = enter(createDerCursor(value));
  while (!points.isEmpty()) {
    const name = enter(points).optional(explicitTags.zero);
    if (name === undefined) continue;
    const names = enter(createDerCursor(name.content), explicitTags.zero);
    while (names.peek() === implicitTags.uri) urls.push(textOfBytes(names.any().content));
  }
  return urls;
}

function readPolicies(value: Buffer): readonly Buffer[] {
  const policies: Buffer[] = [];
  const seen = new Set<string>();
  const list = enter(createDerCursor(value));
  while (!list.isEmpty()) {
    const { content } = enter(list).take(derTag.oid);
    const text = decodeArcs(content).join('.');
    if (seen.has(text)) return refuse('certificate has a policy twice');
    seen.add(text);
    policies.push(content);
  }
  return policies;
}

function readAccess(value: Buffer, critical: boolean, fields: Draft): void {
  if (critical) refuse('authority information access is critical');
  const list = enter(createDerCursor(value));
  while (!list.isEmpty()) {
    const description = enter(list);
    const method = decodeOidNumbers(description.take(derTag.oid)).join('.');
    const location = description.optional(implicitTags.uri);
    if (location === undefined) continue;
    const url = textOfBytes(location.content);
    if (method === '1.3.6.1.5.5.7.48.1') fields.ocspServers = [...fields.ocspServers, url];
    if (method === '1.3.6.1.5.5.7.48.2')
      fields.issuingCertificateUrls = [...fields.issuingCertificateUrls, url];
  }
}
