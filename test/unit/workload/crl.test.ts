import 'reflect-metadata';
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { it } from 'node:test';
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { parseCertificate } from '../../../src/spiffe/certificate.ts';
import { crlIssuerDer } from '../../../src/workload/crl.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
const crl = Buffer.from(
  (
    await x509.X509CrlGenerator.create(
      {
        issuer: 'CN=an authority,O=example',
        entries: [{ serialNumber: '0a' }],
        signingKey: keys.privateKey,
        signingAlgorithm: algorithm,
      },
      webcrypto,
    )
  ).rawData,
);

it('the issuer of a CRL is the subject of the authority that signed it, byte for byte', async () => {
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    { name: 'CN=an authority,O=example', keys, signingAlgorithm: algorithm },
    webcrypto,
  );
  const { subjectDer } = parseCertificate(Buffer.from(certificate.rawData));
  assert.ok(crlIssuerDer(crl).equals(subjectDer));
});

it('what is no CRL is malformed, and garbled ones never throw anything but AppError', () => {
  for (const bytes of [
    Buffer.alloc(0),
    Buffer.from('3000', 'hex'),
    Buffer.from('30023000', 'hex'),
    crl.subarray(1),
  ]) {
    assert.throws(() => crlIssuerDer(bytes), MalformedError);
  }
  fc.assert(
    fc.property(fc.nat(crl.length - 1), fc.nat(255), (at, byte) => {
      const garbled = Buffer.from(crl);
      garbled[at] = byte;
      try {
        crlIssuerDer(garbled);
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
