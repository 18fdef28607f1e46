import 'reflect-metadata';
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Extension, X509CrlGenerator } from '@peculiar/x509';
import fc from 'fast-check';
import { fitnessOf, isRevoked } from '../../../src/spiffe/crl.ts';
import { verifyX509Svid } from '../../../src/spiffe/verify.ts';
import { createTestAuthority, testNow, x509Bundle, x509Bundles } from '../../support/ca.ts';

const own = 'example.org';
const root = await createTestAuthority(own);
const sameName = await createTestAuthority(own);
const { certificate: revoked } = await root.leaf();
const { certificate: other } = await root.leaf();
const crl = await root.crl([revoked]);

const trustWith = (...crls: readonly Buffer[]) => x509Bundles(x509Bundle(own, [root], crls));

test('a revoked leaf is an untrusted chain, others of the same authority are valid', () => {
  const result = verifyX509Svid([revoked], trustWith(crl), testNow);
  assert.ok(!result.valid);
  assert.equal(result.reason, 'untrusted_chain');
  assert.match(result.message, /revoked/);
  assert.equal(verifyX509Svid([other], trustWith(crl), testNow).valid, true);
  assert.equal(verifyX509Svid([revoked], trustWith(), testNow).valid, true);
});

test('a revoked intermediate breaks the paths through it, and only those', async () => {
  const [bad, good] = await Promise.all([root.intermediate(), root.intermediate()]);
  const bundles = trustWith(await root.crl([bad.certificate]));
  const verify = async (through: typeof bad): Promise<boolean> => {
    const { certificate } = await through.leaf();
    return verifyX509Svid([certificate, through.certificate], bundles, testNow).valid;
  };
  assert.equal(await verify(bad), false);
  assert.equal(await verify(good), true);
});

test('each CRL counts, an empty one revokes nothing', async () => {
  const empty = await root.crl([]);
  const others = await root.crl([other]);
  assert.equal(isRevoked(revoked, root.certificate, [empty, others, crl]), true);
  assert.equal(isRevoked(revoked, root.certificate, [empty, others]), false);
});

test('a revocation outlives the date of the next update', async () => {
  const old = await root.crl([revoked], { nextUpdate: testNow - 1000 });
  assert.equal(isRevoked(revoked, root.certificate, [old]), true);
});

test('a CRL signed by another key of the same name revokes nothing', async () => {
  const forged = await sameName.crl([revoked]);
  assert.equal(isRevoked(revoked, root.certificate, [forged]), false);
});

test('a CRL of another name revokes nothing', async () => {
  const stranger = await createTestAuthority(own, { subject: 'CN=stranger', keysOf: root });
  assert.equal(isRevoked(revoked, root.certificate, [await stranger.crl([revoked])]), false);
});

test('a CRL with any byte changed revokes what it did or nothing', () => {
  fc.assert(
    fc.property(fc.nat(crl.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = Buffer.from(crl);
      changed[at] = (changed[at] ?? 0) ^ flip;
      isRevoked(revoked, root.certificate, [changed]);
      assert.equal(isRevoked(other, root.certificate, [changed]), false);
    }),
    { numRuns: 1000 },
  );
});

describe('a CRL for a reader that demands one', () => {
  const hourMs = 3_600_000;
  const faultOf = (der: Buffer, authority = root, now = testNow): string | undefined => {
    const fitness = fitnessOf(der, authority.certificate, now);
    return fitness.fit ? undefined : fitness.fault;
  };

  test('is fit for the authority that signed it, until the next update is due', async () => {
    assert.deepEqual(fitnessOf(crl, root.certificate, testNow), {
      fit: true,
      until: testNow + hourMs,
      namesKey: true,
    });
    assert.equal(faultOf(crl, root, testNow + hourMs), 'out of date');
    const endless = await root.crl([revoked], { nextUpdate: null, keyIdentifier: false });
    assert.deepEqual(fitnessOf(endless, root.certificate, testNow), {
      fit: true,
      until: Number.POSITIVE_INFINITY,
      namesKey: false,
    });
    assert.equal(faultOf(await root.crl([])), undefined);
  });

  test('is not fit for another authority of the same name, nor of another name', async () => {
    assert.equal(faultOf(crl, sameName), 'of another issuer');
    const stranger = await createTestAuthority(own, { subject: 'CN=stranger', keysOf: root });
    assert.equal(faultOf(crl, stranger), 'of another issuer');
  });

  test('is not fit from an authority that may not sign CRLs', async () => {
    const silent = await createTestAuthority(own, { keyUsage: ['keyCertSign'] });
    assert.equal(faultOf(await silent.crl([]), silent), 'of an issuer without the key usage cRLSign');
  });

  test('is not fit before its time, and says when that comes', async () => {
    const thisUpdate = testNow + 1000;
    const early = await root.crl([], { thisUpdate });
    assert.deepEqual(fitnessOf(early, root.certificate, testNow), {
      fit: false,
      fault: 'not valid yet',
      until: thisUpdate,
    });
  });

  test('is not fit with a critical extension of its own or of an entry; others do no harm', async () => {
    const oid = '1.3.6.1.4.1.99999.1';
    const critical = [new Extension(oid, true, Buffer.from('0500', 'hex'))];
    const plain = [new Extension(oid, false, Buffer.from('0500', 'hex'))];
    assert.equal(faultOf(await root.crl([revoked], { extensions: critical })), 'with a critical extension');
    assert.equal(
      faultOf(await root.crl([revoked], { entryExtensions: critical })),
      'with a critical extension',
    );
    assert.equal(
      faultOf(await root.crl([revoked], { extensions: plain, entryExtensions: plain })),
      undefined,
    );
  });

  test('is not fit when it is for a part of the certificates, even if it does not say so critically', async () => {
    for (const oid of ['2.5.29.27', '2.5.29.28']) {
      const extensions = [new Extension(oid, false, Buffer.from('3000', 'hex'))];
      assert.equal(faultOf(await root.crl([], { extensions })), 'for a part of the certificates only');
    }
  });

  test('is malformed with what Envoy could not load: it would refuse the whole bundle', async () => {
    const broken = (oid: string, value: string) => [new Extension(oid, false, Buffer.from(value, 'hex'))];
    for (const extensions of [
      broken('2.5.29.35', '0500'),
      broken('2.5.29.35', '30020500'),
      broken('2.5.29.35', '3000'),
      broken('2.5.29.20', '0500'),
      [...broken('1.2.3', '0500'), ...broken('1.2.3', '0500')],
    ]) {
      assert.equal(faultOf(await root.crl([revoked], { extensions, keyIdentifier: false })), 'malformed');
    }
    const otherKey = broken('2.5.29.35', '30058003010203');
    assert.equal(
      faultOf(await root.crl([revoked], { extensions: otherKey, keyIdentifier: false })),
      'not naming the key of its issuer as the issuer does',
    );
    // @peculiar/x509 writes an empty list of extensions for an entry without any.
    const empty = await X509CrlGenerator.create({
      issuer: 'O=svidecar test, CN=authority of example.org',
      signingAlgorithm: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
      signingKey: root.keys.privateKey,
      thisUpdate: new Date(testNow),
      entries: [{ serialNumber: '40' }],
    });
    assert.equal(faultOf(Buffer.from(empty.rawData)), 'malformed');
  });

  test('with any byte changed is fit no more, and never throws', () => {
    fc.assert(
      fc.property(fc.nat(crl.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(crl);
        changed[at] = (changed[at] ?? 0) ^ flip;
        assert.notEqual(faultOf(changed), undefined);
      }),
      { numRuns: 1000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        assert.notEqual(faultOf(Buffer.from(bytes)), undefined);
      }),
    );
  });
});
