import 'reflect-metadata';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import {
  encodeCertificatesPem,
  encodeCrlPem,
  encodePrivateKeyPem,
  parseCertificate,
  parseCertificates,
  parsePemCertificates,
} from '../../../src/spiffe/certificate.ts';
import { type CertificateTemplate, createTestAuthority, oids, testNow } from '../../support/ca.ts';

const authority = await createTestAuthority('example.org');
const rsaAuthority = await createTestAuthority('example.org', { rsa: true, pathLength: 3 });
const leaf = await authority.leaf();

const templates: readonly CertificateTemplate[] = [
  {},
  { rsa: true, uris: ['spiffe://example.org/a', 'https://example.org/'], dnsNames: ['example.org'] },
  { keyUsage: null, extendedKeyUsage: null, uris: [], subject: 'C=DE, O="a, b", CN=x\\+y' },
  { keyUsage: ['digitalSignature', 'keyAgreement', 'decipherOnly'], extendedKeyUsage: [oids.codeSigning] },
  { isCa: true, pathLength: 0, keyUsage: ['keyCertSign', 'cRLSign'] },
  { notBefore: Date.parse('1970-01-01T00:00:00Z'), notAfter: Date.parse('2090-12-31T23:59:59Z') },
];

test('every field is what another library reads from the same bytes', async () => {
  for (const template of templates) {
    for (const issuer of [authority, rsaAuthority]) {
      const { certificate } = await issuer.leaf(template);
      const other = new x509.X509Certificate(certificate.der);
      const san = other.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
      const usage = other.getExtension(x509.KeyUsagesExtension)?.usages;
      const constraints = other.getExtension(x509.BasicConstraintsExtension);
      assert.equal(certificate.serial, other.serialNumber.replace(/^0+/, ''));
      assert.equal(certificate.notBefore, other.notBefore.getTime());
      assert.equal(certificate.notAfter, other.notAfter.getTime());
      assert.deepEqual(certificate.subjectDer, Buffer.from(other.subjectName.toArrayBuffer()));
      assert.deepEqual(certificate.issuerDer, Buffer.from(other.issuerName.toArrayBuffer()));
      assert.deepEqual(
        certificate.uriSans,
        san.filter(({ type }) => type === 'url').map(({ value }) => value),
      );
      assert.equal(certificate.isCa, constraints?.ca);
      assert.equal(certificate.pathLength, constraints?.pathLength);
      assert.equal(certificate.keyUsage === undefined, usage === undefined);
      const bits = [...(certificate.keyUsage ?? [])].map((name) => x509.KeyUsageFlags[name as 'cRLSign']);
      assert.equal(
        bits.reduce<number>((sum, bit) => sum | bit, 0),
        usage ?? 0,
      );
      assert.deepEqual(
        [...(certificate.extendedKeyUsage ?? [])],
        [...(other.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [])],
      );
      assert.equal(certificate.fingerprint, createHash('sha256').update(certificate.der).digest('hex'));
      assert.deepEqual(
        certificate.publicKey.export({ type: 'spki', format: 'der' }),
        Buffer.from(other.publicKey.rawData),
      );
      assert.deepEqual(certificate.unknownCriticalExtensions, []);
    }
  }
});

test('names are RFC 4514 text, the last part first', async () => {
  const { certificate } = await authority.leaf({ subject: 'C=DE, O=b, CN=x' });
  assert.equal(certificate.subject, 'CN=x,O=b,C=DE');
  assert.equal(certificate.issuer, 'CN=authority of example.org,O=svidecar test');
  assert.equal(leaf.certificate.subject, '');
});

test('a critical extension that is unknown is reported, one that is not critical is not', async () => {
  const unknown = (critical: boolean) => new x509.Extension('1.2.3.4', critical, Buffer.of(5, 0));
  const critical = await authority.leaf({ extensions: [unknown(true)] });
  const harmless = await authority.leaf({ extensions: [unknown(false)] });
  assert.deepEqual(critical.certificate.unknownCriticalExtensions, ['1.2.3.4']);
  assert.deepEqual(harmless.certificate.unknownCriticalExtensions, []);
});

test('an extension that occurs twice is refused', async () => {
  const again = new x509.SubjectAlternativeNameExtension([
    { type: 'url', value: 'spiffe://example.org/other' },
  ]);
  await assert.rejects(authority.leaf({ extensions: [again] }), /2\.5\.29\.17 occurs twice/);
});

test('a key usage of thousands of bits is refused unread', async () => {
  const bits = Buffer.alloc(60_000, 0xff);
  const header = Buffer.from([0x03, 0x82, (bits.length + 1) >> 8, (bits.length + 1) & 0xff, 0]);
  const usage = new x509.Extension('2.5.29.15', true, Buffer.concat([header, bits]));
  await assert.rejects(authority.leaf({ keyUsage: null, extensions: [usage] }), /too many bits/);
});

test('a certificate that names two signature algorithms is refused', () => {
  const bytes = Buffer.from(leaf.certificate.der);
  const ecdsaWithSha256 = Buffer.from('06082a8648ce3d040302', 'hex');
  const outer = bytes.lastIndexOf(ecdsaWithSha256);
  assert.notEqual(outer, bytes.indexOf(ecdsaWithSha256));
  bytes[outer + ecdsaWithSha256.length - 1] = 3;
  assert.throws(() => parseCertificate(bytes), /two signature algorithms/);
});

test('extensions in a certificate of version 2 are refused', () => {
  const bytes = Buffer.from(leaf.certificate.der);
  const version3 = Buffer.from('a003020102', 'hex');
  bytes[bytes.indexOf(version3) + version3.length - 1] = 1;
  assert.throws(() => parseCertificate(bytes), /only version 3/);
});

test('the certificate keeps its own copy of the bytes', () => {
  const bytes = Buffer.from(leaf.certificate.der);
  const parsed = parseCertificate(bytes);
  bytes.fill(0);
  assert.deepEqual(parsed.der, leaf.certificate.der);
  assert.ok(Object.isFrozen(parsed));
});

test('concatenated certificates come apart in order', () => {
  const all = [leaf.certificate, rsaAuthority.certificate, authority.certificate];
  const parsed = parseCertificates(Buffer.concat(all.map(({ der }) => der)), 3);
  assert.deepEqual(
    parsed.map(({ fingerprint }) => fingerprint),
    all.map(({ fingerprint }) => fingerprint),
  );
  assert.deepEqual(parseCertificates(Buffer.of(), 3), []);
  assert.throws(() => parseCertificates(Buffer.concat(all.map(({ der }) => der)), 2), LimitError);
});

test('PEM goes out and comes back the same', () => {
  const all = [leaf.certificate, authority.certificate];
  const pem = encodeCertificatesPem(all);
  assert.deepEqual(
    parsePemCertificates(pem.toString(), 2).map(({ fingerprint }) => fingerprint),
    all.map(({ fingerprint }) => fingerprint),
  );
  assert.equal(pem.toString().match(/-----BEGIN CERTIFICATE-----\n/g)?.length, 2);
  assert.deepEqual(parsePemCertificates('', 2), []);
  assert.throws(() => parsePemCertificates(pem.toString(), 1), LimitError);
});

test('keys and CRLs have their own labels', () => {
  assert.match(encodePrivateKeyPem(leaf.privateKey).toString(), /^-----BEGIN PRIVATE KEY-----\n/);
  assert.match(
    encodeCrlPem(Buffer.of(1)).toString(),
    /^-----BEGIN X509 CRL-----\nAQ==\n-----END X509 CRL-----\n$/,
  );
});

test('bytes behind a certificate, a cut one and a huge one are refused', () => {
  const { der } = leaf.certificate;
  assert.throws(() => parseCertificate(Buffer.concat([der, Buffer.of(0)])), MalformedError);
  assert.throws(() => parseCertificate(der.subarray(0, -1)), MalformedError);
  assert.throws(() => parseCertificate(Buffer.of()), MalformedError);
  assert.throws(() => parseCertificate(Buffer.alloc(64 * 1024 + 1)), LimitError);
});

test('a certificate with any byte changed is read or refused with an AppError, never more', () => {
  const { der } = leaf.certificate;
  fc.assert(
    fc.property(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = Buffer.from(der);
      changed[at] = (changed[at] ?? 0) ^ flip;
      try {
        assert.deepEqual(parseCertificate(changed).der, changed);
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('the times of a certificate are those it was issued with', () => {
  assert.equal(leaf.certificate.notBefore, testNow - 3_600_000);
  assert.equal(leaf.certificate.notAfter, testNow + 3_600_000);
});
