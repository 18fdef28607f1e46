import { whole } from '../args.ts';
import { formatAddress } from '../cidr.ts';
import { decodeArcs, isSmallOid } from '../der-cursor.ts';
import { textOfBytes } from '../go-text.ts';
import { formatUrl, type GoUrl } from '../go-url.ts';
import type { Value } from '../value.ts';
import type { AlternativeNames } from './x509-alternative-names.ts';
import type { GoCertificate } from './x509-certificate.ts';
import type { Extension, SkipCount } from './x509-extensions.ts';
import type { Network, Subtrees } from './x509-name-constraints.ts';

/** A JSON object of these fields. */
export function record(fields: Readonly<Record<string, Value>>): ReadonlyMap<Value, Value> {
  return new Map(Object.entries(fields));
}

/** A list as Go has it: nothing at all where it was never filled. */
export function listOf(values: readonly Value[]): Value {
  return values.length === 0 ? null : values;
}

export function base64(bytes: Buffer | undefined): Value {
  return bytes === undefined ? null : bytes.toString('base64');
}

/** A certificate as Go's JSON of x509.Certificate. */
export function certificateJson(certificate: GoCertificate): ReadonlyMap<Value, Value> {
  const { fields, publicKey } = certificate;
  const { basicConstraints, nameConstraints, policies } = fields;
  return record({
    Raw: base64(certificate.raw),
    RawTBSCertificate: base64(certificate.rawTbs),
    RawSubjectPublicKeyInfo: base64(certificate.rawSpki),
    RawSubject: base64(certificate.rawSubject),
    RawIssuer: base64(certificate.rawIssuer),
    Signature: base64(certificate.signature),
    SignatureAlgorithm: certificate.signatureAlgorithm.number,
    PublicKeyAlgorithm: publicKey.algorithm,
    PublicKey: publicKey.json,
    Version: certificate.version,
    SerialNumber: whole(certificate.serial),
    Issuer: certificate.issuer,
    Subject: certificate.subject,
    NotBefore: timeText(certificate.notBefore),
    NotAfter: timeText(certificate.notAfter),
    KeyUsage: fields.keyUsage,
    Extensions: extensionsJson(certificate.extensions),
    ExtraExtensions: null,
    UnhandledCriticalExtensions: listOf(fields.unhandledCritical),
    ExtKeyUsage: listOf(fields.extKeyUsage),
    UnknownExtKeyUsage: listOf(fields.unknownExtKeyUsage),
    BasicConstraintsValid: basicConstraints !== undefined,
    IsCA: basicConstraints?.isCa ?? false,
    MaxPathLen: whole(basicConstraints?.maxPathLength ?? 0n),
    MaxPathLenZero: basicConstraints?.maxPathLength === 0n,
    SubjectKeyId: base64(fields.subjectKeyId),
    AuthorityKeyId: base64(fields.authorityKeyId),
    OCSPServer: listOf(fields.ocspServers),
    IssuingCertificateURL: listOf(fields.issuingCertificateUrls),
    ...namesJson(fields.names),
    PermittedDNSDomainsCritical: nameConstraints?.critical ?? false,
    ...subtreesJson('Permitted', nameConstraints?.permitted),
    ...subtreesJson('Excluded', nameConstraints?.excluded),
    CRLDistributionPoints: listOf(fields.crlDistributionPoints),
    PolicyIdentifiers:
      policies === undefined
        ? null
        : policies
            .map((policy) => decodeArcs(policy))
            .filter(isSmallOid)
            .map((arcs) => arcs.map(Number)),
    Policies: listOf((policies ?? []).map(oidText)),
    PolicyMappings: listOf(
      fields.policyMappings.map(({ issuer, subject }) =>
        record({ IssuerDomainPolicy: oidText(issuer), SubjectDomainPolicy: oidText(subject) }),
      ),
    ),
    ...skipJson('InhibitAnyPolicy', fields.inhibitAnyPolicy),
    ...skipJson('InhibitPolicyMapping', fields.inhibitPolicyMapping),
    ...skipJson('RequireExplicitPolicy', fields.requireExplicitPolicy),
  });
}

/** A certificate with `URIStrings`, which OPA adds. */
export function extendedCertificateJson(certificate: GoCertificate): Value {
  const texts = certificate.fields.names.urls.map((url) => textOf(formatUrl(url)));
  return new Map(certificateJson(certificate)).set('URIStrings', listOf(texts));
}

export function extensionsJson(extensions: readonly Extension[]): Value {
  return listOf(
    extensions.map(({ id, critical, value }) => record({ Id: id, Critical: critical, Value: base64(value) })),
  );
}

export function namesJson({ dns, emails, addresses, urls }: AlternativeNames): Record<string, Value> {
  return {
    DNSNames: listOf(dns),
    EmailAddresses: listOf(emails),
    IPAddresses: listOf(addresses.map(addressText)),
    URIs: listOf(urls.map(urlJson)),
  };
}

function subtreesJson(side: 'Permitted' | 'Excluded', subtrees: Subtrees | undefined): Record<string, Value> {
  return {
    [`${side}DNSDomains`]: listOf(subtrees?.dns ?? []),
    [`${side}IPRanges`]: listOf((subtrees?.networks ?? []).map(networkJson)),
    [`${side}EmailAddresses`]: listOf(subtrees?.emails ?? []),
    [`${side}URIDomains`]: listOf(subtrees?.uriDomains ?? []),
  };
}

function networkJson({ address, mask }: Network): Value {
  return record({ IP: addressText(address), Mask: base64(mask) });
}

function skipJson(name: string, count: SkipCount): Record<string, Value> {
  return { [name]: whole(count ?? 0n), [`${name}Zero`]: count === 0n };
}

function urlJson(url: GoUrl): Value {
  return record({
    Scheme: url.scheme,
    Opaque: textOf(url.opaque),
    // Go keeps these fields to itself.
    User: url.user === undefined ? null : new Map(),
    Host: textOf(url.host),
    Path: textOf(url.path),
    RawPath: textOf(url.rawPath),
    RawQuery: textOf(url.rawQuery),
    Fragment: textOf(url.fragment),
    RawFragment: textOf(url.rawFragment),
    ForceQuery: url.forceQuery,
    OmitHost: url.omitHost,
  });
}

function textOf(bytes: string): string {
  return textOfBytes(Buffer.from(bytes, 'latin1'));
}

function addressText(address: Buffer): string {
  return formatAddress(BigInt(`0x${address.toString('hex')}`), address.length * 8);
}

function oidText(content: Buffer): string {
  return decodeArcs(content).join('.');
}

export function timeText(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace('.000Z', 'Z');
}
