import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isRevoked } from '../../../src/spiffe/crl.ts';
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
