import { randomBytes, webcrypto } from 'node:crypto';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import type { JwtAuthority, JwtBundleSet, X509Bundle, X509BundleSet } from '../../src/spiffe/bundle.ts';
import { type Certificate, parseCertificate } from '../../src/spiffe/certificate.ts';
import {
  idOfTrustDomain,
  parseSpiffeId,
  parseTrustDomain,
  trustDomainOf,
} from '../../src/spiffe/spiffe-id.ts';
import type { X509Svid } from '../../src/spiffe/x509-svid.ts';

/**
 * Every part of a certificate that a test may want to be wrong. What is left out is right: for a leaf that of an
 * X509-SVID, for an authority that of a signing certificate. `null` leaves the extension out.
 */
export type CertificateTemplate = Readonly<{
  subject?: string;
  uris?: readonly string[];
  dnsNames?: readonly string[];
  isCa?: boolean;
  pathLength?: number;
  keyUsage?: readonly (keyof typeof x509.KeyUsageFlags)[] | null;
  extendedKeyUsage?: readonly string[] | null;
  notBefore?: number;
  notAfter?: number;
  /** Appended as they are. */
  extensions?: readonly x509.Extension[];
  /** The hash of the signature. */
  hash?: 'SHA-1' | 'SHA-256' | 'SHA-384';
  /** Signs in place of the authority's own key: the names fit, the signature does not. */
  signedBy?: TestAuthority;
  /** RSA with 2048 bits in place of ECDSA P-256 for the new key. */
  rsa?: boolean;
  /** No new key, but that of another authority. */
  keysOf?: TestAuthority;
}>;

/** A certificate together with its key, PKCS#8 in DER. */
export type Issued = Readonly<{ certificate: Certificate; privateKey: Buffer }>;

/** A signing certificate with its key: root or intermediate. */
export interface TestAuthority {
  readonly certificate: Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
  /** A certificate for a new key; by default a correct leaf for `spiffe://TRUST-DOMAIN/workload`. */
  leaf(template?: CertificateTemplate): Promise<Issued>;
  /** An authority below this one. */
  intermediate(template?: CertificateTemplate): Promise<TestAuthority>;
  /** A correct X509-SVID with the chain given. */
  svid(id: string, options?: { hint?: string; through?: readonly TestAuthority[] }): Promise<X509Svid>;
  /** A CRL that names the certificates; dated around `testNow`. `nextUpdate` null leaves that out. */
  crl(
    revoked: readonly Certificate[],
    template?: {
      thisUpdate?: number;
      nextUpdate?: number | null;
      keyIdentifier?: false;
      extensions?: readonly x509.Extension[];
      entryExtensions?: readonly x509.Extension[];
    },
  ): Promise<Buffer>;
}

/** The clock of tests that do not care: certificates of this file are valid around it. */
export const testNow = Date.parse('2026-06-01T12:00:00Z');
const hourMs = 3_600_000;

export const oids = Object.freeze({
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  codeSigning: '1.3.6.1.5.5.7.3.3',
});

/** A self-signed authority of `trustDomain`. */
export async function createTestAuthority(
  trustDomain: string,
  template: CertificateTemplate = {},
): Promise<TestAuthority> {
  const keys = await keysFor(template);
  const complete = authorityTemplate(trustDomain, template);
  const certificate = await sign(
    complete,
    complete.subject ?? '',
    keys.publicKey,
    template.signedBy?.keys ?? keys,
  );
  return createAuthority(trustDomain, certificate, keys);
}

/** The bundle of `trustDomain` with these authorities. */
export function x509Bundle(
  trustDomain: string,
  authorities: readonly Readonly<{ certificate: Certificate }>[],
  crls: readonly Buffer[] = [],
): X509Bundle {
  return {
    trustDomain: parseTrustDomain(trustDomain),
    authorities: authorities.map(({ certificate }) => certificate),
    crls,
  };
}

export function x509Bundles(...bundles: readonly X509Bundle[]): X509BundleSet {
  return new Map(bundles.map((bundle) => [bundle.trustDomain, bundle]));
}

export function jwtBundles(authorities: Readonly<Record<string, readonly JwtAuthority[]>>): JwtBundleSet {
  return new Map(
    Object.entries(authorities).map(([name, keys]) => {
      const trustDomain = parseTrustDomain(name);
      return [trustDomain, { trustDomain, authorities: keys }];
    }),
  );
}

function authorityTemplate(trustDomain: string, template: CertificateTemplate): CertificateTemplate {
  return {
    subject: `O=svidecar test, CN=authority of ${trustDomain}`,
    uris: [idOfTrustDomain(parseTrustDomain(trustDomain))],
    isCa: true,
    keyUsage: ['keyCertSign', 'cRLSign'],
    extendedKeyUsage: null,
    ...template,
  };
}

function createAuthority(
  trustDomain: string,
  certificate: Certificate,
  keys: webcrypto.CryptoKeyPair,
): TestAuthority {
  const issuer = new x509.X509Certificate(certificate.der).subject;
  const authority: TestAuthority = {
    certificate,
    keys,
    async leaf(template = {}) {
      const leafKeys = await keysFor(template);
      const leaf = await sign(
        { uris: [`spiffe://${trustDomain}/workload`], ...template },
        issuer,
        leafKeys.publicKey,
        template.signedBy?.keys ?? keys,
        keys.publicKey,
      );
      return { certificate: leaf, privateKey: await exportKey(leafKeys) };
    },
    async intermediate(template = {}) {
      const childKeys = await keysFor(template);
      const subject = `O=svidecar test, CN=intermediate ${randomBytes(4).toString('hex')}`;
      const child = await sign(
        authorityTemplate(trustDomain, { subject, ...template }),
        issuer,
        childKeys.publicKey,
        template.signedBy?.keys ?? keys,
        keys.publicKey,
      );
      return createAuthority(trustDomain, child, childKeys);
    },
    async svid(id, { hint = '', through = [] } = {}) {
      const spiffeId = parseSpiffeId(id);
      const leaf = await authority.leaf({ uris: [spiffeId] });
      const chain = [leaf.certificate, ...through.map((intermediate) => intermediate.certificate)] as const;
      return { spiffeId, chain, privateKey: leaf.privateKey, hint };
    },
    async crl(revoked, template = {}) {
      const { thisUpdate = testNow - hourMs, nextUpdate = testNow + hourMs } = template;
      const crl = await x509.X509CrlGenerator.create(
        {
          issuer,
          thisUpdate: new Date(thisUpdate),
          ...(nextUpdate === null ? {} : { nextUpdate: new Date(nextUpdate) }),
          extensions: [
            ...(template.keyIdentifier === false
              ? []
              : [await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey)]),
            ...(template.extensions ?? []),
          ],
          signingAlgorithm: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
          signingKey: keys.privateKey,
          entries: revoked.map(({ serial }) => ({
            serialNumber: serial.padStart(serial.length + (serial.length % 2), '0'),
            revocationDate: new Date(testNow - hourMs),
            // Without any, the library writes an empty list, which RFC 5280 and Envoy refuse.
            reason: x509.X509CrlReason.keyCompromise,
            extensions: [...(template.entryExtensions ?? [])],
          })),
        },
        webcrypto,
      );
      return Buffer.from(crl.rawData);
    },
  };
  return authority;
}

/** The trust domain of the bundle set that a leaf of `authority` is verified with, holding that authority alone. */
export function trustIn(authority: TestAuthority): X509BundleSet {
  const [uri = ''] = authority.certificate.uriSans;
  return x509Bundles(x509Bundle(trustDomainOf(parseSpiffeId(uri)), [authority]));
}

async function sign(
  template: CertificateTemplate,
  issuer: string,
  publicKey: webcrypto.CryptoKey,
  signer: webcrypto.CryptoKeyPair,
  issuerKey?: webcrypto.CryptoKey,
): Promise<Certificate> {
  const {
    subject = '',
    uris = [],
    dnsNames = [],
    isCa = false,
    pathLength,
    keyUsage = ['digitalSignature'],
    extendedKeyUsage = [oids.serverAuth, oids.clientAuth],
    notBefore = testNow - hourMs,
    notAfter = testNow + hourMs,
    extensions = [],
    hash = 'SHA-256',
  } = template;
  const names: x509.JsonGeneralNames = [
    ...uris.map((value) => ({ type: 'url' as const, value })),
    ...dnsNames.map((value) => ({ type: 'dns' as const, value })),
  ];
  const signed = await x509.X509CertificateGenerator.create(
    {
      serialNumber: `40${randomBytes(15).toString('hex')}`,
      subject,
      issuer,
      notBefore: new Date(notBefore),
      notAfter: new Date(notAfter),
      publicKey,
      signingKey: signer.privateKey,
      signingAlgorithm: { ...signer.privateKey.algorithm, hash },
      extensions: [
        new x509.BasicConstraintsExtension(isCa, pathLength, true),
        ...(keyUsage === null ? [] : [keyUsageExtension(keyUsage)]),
        ...(extendedKeyUsage === null ? [] : [new x509.ExtendedKeyUsageExtension([...extendedKeyUsage])]),
        ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names, subject === '')]),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        ...(issuerKey === undefined ? [] : [await x509.AuthorityKeyIdentifierExtension.create(issuerKey)]),
        ...extensions,
      ],
    },
    webcrypto,
  );
  return parseCertificate(Buffer.from(signed.rawData));
}

function keyUsageExtension(names: readonly (keyof typeof x509.KeyUsageFlags)[]): x509.Extension {
  const flags = names.map((name) => x509.KeyUsageFlags[name]).reduce((sum, flag) => sum | flag);
  return new x509.KeyUsagesExtension(flags, true);
}

async function keysFor({ rsa = false, keysOf }: CertificateTemplate): Promise<webcrypto.CryptoKeyPair> {
  if (keysOf !== undefined) return keysOf.keys;
  return rsa
    ? webcrypto.subtle.generateKey(
        {
          name: 'RSASSA-PKCS1-v1_5',
          hash: 'SHA-256',
          modulusLength: 2048,
          publicExponent: Uint8Array.of(1, 0, 1),
        },
        true,
        ['sign', 'verify'],
      )
    : webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
}

async function exportKey(keys: webcrypto.CryptoKeyPair): Promise<Buffer> {
  return Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
}
