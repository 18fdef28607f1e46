import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { checkX509Svid, parseX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { type CertificateTemplate, createTestAuthority, testNow } from '../../support/ca.ts';

const root = await createTestAuthority('example.org');
const spiffeId = 'spiffe://example.org/workload';
const good = await root.leaf();
const parts = { spiffeId, chainDer: good.certificate.der, privateKeyDer: good.privateKey, hint: 'internal' };

const refused = (changed: Partial<typeof parts>, message: RegExp): void =>
  assert.throws(
    () => parseX509Svid({ ...parts, ...changed }, testNow),
    (error) => error instanceof AppError && message.test(error.message) && error.cause === undefined,
  );

test('chain, key and hint become an SVID that owns its bytes', async () => {
  const intermediate = await root.intermediate();
  const leaf = await intermediate.leaf();
  const chainDer = Buffer.concat([leaf.certificate.der, intermediate.certificate.der]);
  const privateKeyDer = Buffer.from(leaf.privateKey);
  const svid = parseX509Svid({ ...parts, chainDer, privateKeyDer }, testNow);
  chainDer.fill(0);
  privateKeyDer.fill(0);
  assert.equal(svid.spiffeId, spiffeId);
  assert.equal(svid.hint, 'internal');
  assert.deepEqual(svid.privateKey, leaf.privateKey);
  assert.deepEqual(
    svid.chain.map(({ fingerprint }) => fingerprint),
    [leaf.certificate.fingerprint, intermediate.certificate.fingerprint],
  );
  checkX509Svid(svid, testNow);
});

test('the key of another certificate is refused', async () => {
  const other = await root.leaf();
  refused({ privateKeyDer: other.privateKey }, /does not match its certificate/);
  refused({ privateKeyDer: (await root.leaf({ rsa: true })).privateKey }, /does not match its certificate/);
});

test('a key that is not unencrypted PKCS#8 in DER is refused', () => {
  const key = createPrivateKey({ key: good.privateKey, format: 'der', type: 'pkcs8' });
  const encrypted = key.export({ format: 'der', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' });
  const pem = Buffer.from(key.export({ format: 'pem', type: 'pkcs8' }));
  const sec1 = key.export({ format: 'der', type: 'sec1' });
  for (const privateKeyDer of [
    encrypted,
    pem,
    sec1,
    Buffer.of(),
    Buffer.concat([good.privateKey, Buffer.of(0)]),
  ]) {
    refused({ privateKeyDer }, /not unencrypted PKCS#8/);
  }
  refused({ privateKeyDer: Buffer.alloc(20_000) }, /longer than/);
});

test('a certificate for another ID is refused', () =>
  refused({ spiffeId: 'spiffe://example.org/other' }, /certificate for spiffe:\/\/example.org\/workload/));

test('an ID that is none, no certificate, broken bytes and too many certificates are refused', () => {
  refused({ spiffeId: 'example.org/workload' }, /does not start with spiffe/);
  refused({ chainDer: Buffer.of() }, /no certificate/);
  refused({ chainDer: good.certificate.der.subarray(0, -1) }, /inside a value/);
  refused(
    { chainDer: Buffer.concat(Array.from({ length: 17 }, () => good.certificate.der)) },
    /more than 16/,
  );
  refused({ hint: 'x'.repeat(1025) }, /hint/);
});

for (const [what, template, message] of [
  ['that has expired', { notAfter: testNow - 1000 }, /expired/],
  ['that is not valid yet', { notBefore: testNow + 1000 }, /not valid before/],
  ['that is a CA', { isCa: true }, /signing certificate/],
  ['without digitalSignature', { keyUsage: ['keyAgreement'] }, /digitalSignature/],
  ['with two URIs', { uris: [spiffeId, 'spiffe://example.org/b'] }, /2 URIs/],
] as const satisfies readonly (readonly [string, CertificateTemplate, RegExp])[]) {
  test(`a leaf ${what} is refused`, async () => {
    const { certificate, privateKey } = await root.leaf(template);
    refused({ chainDer: certificate.der, privateKeyDer: privateKey }, message);
  });
}

test('an intermediate that may not sign is refused', async () => {
  for (const template of [{ isCa: false }, { keyUsage: ['cRLSign'] }] as const) {
    const intermediate = await root.intermediate(template);
    const chainDer = Buffer.concat([good.certificate.der, intermediate.certificate.der]);
    refused({ chainDer }, /may not sign/);
  }
});

test('no message carries bytes of the key', () => {
  const privateKeyDer = Buffer.concat([good.privateKey.subarray(0, -1), Buffer.of(1)]);
  assert.throws(
    () => parseX509Svid({ ...parts, privateKeyDer: privateKeyDer.subarray(1) }, testNow),
    (error) =>
      error instanceof MalformedError && !JSON.stringify([error.message, error.cause]).includes('-----BEGIN'),
  );
});

test('whatever the parts, they are an SVID of that ID or an AppError that says nothing of the key', () => {
  const garbled = (bytes: Buffer) =>
    fc.oneof(
      fc.constant(bytes),
      fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array)),
      fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)).map(([at, byte]) => {
        const copy = Buffer.from(bytes);
        copy[at] = byte;
        return copy;
      }),
    );
  const id = fc.oneof(fc.constant(spiffeId), fc.string());
  const secret = good.privateKey.toString('base64').slice(60, 80);
  fc.assert(
    fc.property(
      garbled(good.certificate.der),
      garbled(good.privateKey),
      id,
      fc.string(),
      (chain, key, text, hint) => {
        try {
          const svid = parseX509Svid({ spiffeId: text, chainDer: chain, privateKeyDer: key, hint }, testNow);
          assert.equal(svid.spiffeId, text);
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
          assert.ok(!error.message.includes(secret));
        }
      },
    ),
    { numRuns: 500 },
  );
});
