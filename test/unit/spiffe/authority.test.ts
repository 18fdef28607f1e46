import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { test } from 'node:test';
import { createJwtSigner, createX509Authority } from '../../../src/spiffe/authority.ts';
import { decodeJwtSvid, verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../../../src/spiffe/verify.ts';
import {
  createTestAuthority,
  jwtBundles,
  oids,
  testNow,
  trustIn,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';

const trustDomain = parseTrustDomain('example.org');
const spiffeId = parseSpiffeId('spiffe://example.org/service/web');
const hourMs = 3_600_000;
const now = testNow;

test('an authority is a signing certificate with the ID of its trust domain', async () => {
  const { certificate } = await createX509Authority({ trustDomain, ttlMs: hourMs, now });
  assert.equal(certificate.isCa, true);
  assert.deepEqual([...(certificate.keyUsage ?? [])], ['keyCertSign', 'cRLSign']);
  assert.deepEqual(certificate.uriSans, ['spiffe://example.org']);
  assert.equal(certificate.notAfter, now + hourMs);
  assert.ok(certificate.notBefore < now);
  assert.match(certificate.serial, /^[4-7][0-9a-f]{31}$/);
});

test('an issued SVID is verified by the authority and follows X509-SVID', async () => {
  const authority = await createX509Authority({ trustDomain, ttlMs: hourMs, now });
  const svid = await authority.issue({ spiffeId, ttlMs: 60_000, now, hint: 'web' });
  const [leaf] = svid.chain;
  assert.deepEqual(verifyX509Svid(svid.chain, x509Bundles(x509Bundle(trustDomain, [authority])), now), {
    valid: true,
    spiffeId,
    trustDomain,
    expiresAt: now + 60_000,
  });
  assert.equal(svid.hint, 'web');
  assert.equal(leaf.isCa, false);
  assert.deepEqual(leaf.uriSans, [spiffeId]);
  assert.deepEqual([...(leaf.keyUsage ?? [])], ['digitalSignature']);
  assert.deepEqual([...(leaf.extendedKeyUsage ?? [])], [oids.serverAuth, oids.clientAuth]);
  const key = createPrivateKey({ key: svid.privateKey, format: 'der', type: 'pkcs8' });
  assert.ok(leaf.native.checkPrivateKey(key));
  assert.ok(leaf.native.checkIssued(authority.certificate.native));
});

test('two SVIDs for one ID share neither key nor serial', async () => {
  const authority = await createX509Authority({ trustDomain, ttlMs: hourMs, now });
  const [a, b] = await Promise.all([1, 2].map(() => authority.issue({ spiffeId, ttlMs: 60_000, now })));
  assert.ok(a !== undefined && b !== undefined);
  assert.notEqual(a.chain[0].serial, b.chain[0].serial);
  assert.notDeepEqual(a.privateKey, b.privateKey);
});

test('an SVID does not outlive its authority', async () => {
  const authority = await createX509Authority({ trustDomain, ttlMs: 60_000, now });
  const { chain } = await authority.issue({ spiffeId, ttlMs: hourMs, now });
  assert.equal(chain[0].notAfter, authority.certificate.notAfter);
  assert.ok(chain[0].notBefore >= authority.certificate.notBefore);
});

test('two authorities of one name are told apart by their keys', async () => {
  const [old, young] = await Promise.all(
    [1, 2].map(() => createX509Authority({ trustDomain, ttlMs: hourMs, now })),
  );
  assert.ok(old !== undefined && young !== undefined);
  const { chain } = await young.issue({ spiffeId, ttlMs: 60_000, now });
  assert.equal(verifyX509Svid(chain, x509Bundles(x509Bundle(trustDomain, [old, young])), now).valid, true);
  assert.equal(verifyX509Svid(chain, x509Bundles(x509Bundle(trustDomain, [old])), now).valid, false);
});

test('a signed JWT-SVID is verified with the authority of its signer', async () => {
  const signer = await createJwtSigner({ keyId: 'k1' });
  const svid = await signer.sign({ spiffeId, audiences: ['a', 'b'], ttlMs: 60_000, now });
  assert.deepEqual(decodeJwtSvid(svid.token, '', now), svid);
  assert.equal(svid.expiresAt, now + 60_000);
  assert.equal(svid.issuedAt, now);
  const verified = await verifyJwtSvid(
    svid.token,
    ['b'],
    jwtBundles({ 'example.org': [signer.authority] }),
    now,
  );
  assert.equal(verified.valid, true);
  assert.deepEqual(Object.keys(signer.authority.jwk).sort(), ['crv', 'kid', 'kty', 'x', 'y']);
});

test('signers have key IDs of their own unless one is given', async () => {
  const [a, b] = await Promise.all([createJwtSigner(), createJwtSigner()]);
  assert.notEqual(a.authority.keyId, b.authority.keyId);
});

test('the authorities of other tests issue SVIDs that are valid, too', async () => {
  const authority = await createTestAuthority('example.org');
  const { chain } = await authority.svid(spiffeId);
  assert.equal(verifyX509Svid(chain, trustIn(authority), now).valid, true);
});
