import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, test } from 'node:test';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import type { Certificate } from '../../../src/spiffe/certificate.ts';
import type { JwtReason } from '../../../src/spiffe/jwt-parse.ts';
import { verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { verifyX509Svid } from '../../../src/spiffe/verify.ts';
import type { X509Reason } from '../../../src/spiffe/x509-leaf.ts';
import {
  type CertificateTemplate,
  createTestAuthority,
  jwtBundles,
  testNow,
  trustIn,
} from '../../support/ca.ts';

const own = 'example.org';
const root = await createTestAuthority(own);
const stranger = await createTestAuthority(own, { subject: 'CN=stranger' });
const leaf = async (template: CertificateTemplate = {}): Promise<Certificate> =>
  (await root.leaf(template)).certificate;

// Every reason of the contract: the compiler refuses this table when one is missing or is too much.
const chains: Readonly<Record<X509Reason, () => Promise<readonly Certificate[]>>> = {
  malformed: () => Promise.resolve([]),
  no_spiffe_id: async () => [await leaf({ uris: [] })],
  multiple_uri_sans: async () => [await leaf({ uris: ['spiffe://example.org/a', 'https://example.org/a'] })],
  invalid_spiffe_id: async () => [await leaf({ uris: ['spiffe://example.org'] })],
  leaf_is_ca: async () => [await leaf({ isCa: true })],
  bad_key_usage: async () => [await leaf({ keyUsage: ['keyAgreement'] })],
  expired: async () => [await leaf({ notAfter: testNow - 1000 })],
  not_yet_valid: async () => [await leaf({ notBefore: testNow + 1000 })],
  unknown_trust_domain: async () => [await leaf({ uris: ['spiffe://elsewhere.example/a'] })],
  untrusted_chain: async () => [(await stranger.leaf()).certificate],
};

const signer = await createJwtSigner({ keyId: 'known' });
const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const authority = {
  keyId: 'own',
  jwk: { ...pair.publicKey.export({ format: 'jwk' }), kid: 'own' },
  publicKey: pair.publicKey,
};
const bundles = jwtBundles({ [own]: [signer.authority, authority] });
const seconds = testNow / 1000;
const header = { alg: 'ES256', kid: 'own', typ: 'JWT' };
const claims = {
  sub: 'spiffe://example.org/workload',
  aud: ['billing'],
  exp: seconds + 60,
  nbf: seconds - 60,
};

function token(changes: { header?: object; claims?: object; key?: KeyObject } = {}): string {
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const input = `${encode({ ...header, ...changes.header })}.${encode({ ...claims, ...changes.claims })}`;
  const key = changes.key ?? pair.privateKey;
  const signature = sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
  return `${input}.${signature.toString('base64url')}`;
}

const tokens: Readonly<Record<JwtReason, string>> = {
  malformed: token().replace('.', ''),
  unsupported_algorithm: token({ header: { alg: 'HS256' } }),
  bad_type: token({ header: { typ: 'wit+jwt' } }),
  missing_subject: token({ claims: { sub: undefined } }),
  invalid_spiffe_id: token({ claims: { sub: 'spiffe://Example.org/workload' } }),
  missing_audience: token({ claims: { aud: undefined } }),
  audience_mismatch: token({ claims: { aud: ['ledger'] } }),
  missing_expiry: token({ claims: { exp: undefined } }),
  expired: token({ claims: { exp: seconds } }),
  not_yet_valid: token({ claims: { nbf: seconds + 1 } }),
  unknown_trust_domain: token({ claims: { sub: 'spiffe://elsewhere.example/workload' } }),
  unknown_key: token({ header: { kid: 'other' } }),
  bad_signature: token({ key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }),
};

describe('every reason of the contract for refusing an X509-SVID', () => {
  for (const [reason, chain] of Object.entries(chains)) {
    test(`${reason} is met, and the same certificate without the fault is valid`, async () => {
      const refused = verifyX509Svid(await chain(), trustIn(root), testNow);
      assert.equal(refused.valid ? 'valid' : refused.reason, reason);
      assert.equal(verifyX509Svid([await leaf()], trustIn(root), testNow).valid, true);
    });
  }
});

describe('every reason of the contract for refusing a JWT-SVID', () => {
  for (const [reason, text] of Object.entries(tokens)) {
    test(`${reason} is met, and the same token without the fault is valid`, async () => {
      const refused = await verifyJwtSvid(text, ['billing'], bundles, testNow);
      assert.equal(refused.valid ? 'valid' : refused.reason, reason);
      assert.equal((await verifyJwtSvid(token(), ['billing'], bundles, testNow)).valid, true);
    });
  }
});
