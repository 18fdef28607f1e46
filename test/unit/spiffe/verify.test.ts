import 'reflect-metadata';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { AppError } from '../../../src/runtime/errors.ts';
import type { X509BundleSet } from '../../../src/spiffe/bundle.ts';
import { type Certificate, parseCertificate } from '../../../src/spiffe/certificate.ts';
import { verifyX509Svid } from '../../../src/spiffe/verify.ts';
import type { X509Reason } from '../../../src/spiffe/x509-leaf.ts';
import {
  type CertificateTemplate,
  createTestAuthority,
  oids,
  type TestAuthority,
  testNow,
  trustIn,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';

const own = 'example.org';
const root = await createTestAuthority(own);
const other = await createTestAuthority(own);
const foreign = await createTestAuthority('partner.example');
const trust = trustIn(root);
const unknownCritical = new x509.Extension('1.2.3.4', true, Buffer.of(5, 0));

async function leaf(
  template: CertificateTemplate = {},
  authority: TestAuthority = root,
): Promise<Certificate> {
  return (await authority.leaf(template)).certificate;
}

function assertValid(
  chain: readonly Certificate[],
  bundles: X509BundleSet = trust,
  intermediates: readonly Certificate[] = [],
): void {
  const result = verifyX509Svid(chain, bundles, testNow, intermediates);
  assert.ok(result.valid, JSON.stringify(result));
  assert.equal(result.spiffeId, chain[0]?.uriSans[0]);
}

function assertRefused(
  reason: X509Reason,
  message: RegExp,
  chain: readonly Certificate[],
  bundles: X509BundleSet = trust,
): void {
  const result = verifyX509Svid(chain, bundles, testNow);
  assert.ok(!result.valid);
  assert.equal(result.reason, reason);
  assert.match(result.message, message);
}

test('a leaf of an authority is valid until it ends', async () => {
  const certificate = await leaf();
  assert.deepEqual(verifyX509Svid([certificate], trust, testNow), {
    valid: true,
    spiffeId: 'spiffe://example.org/workload',
    trustDomain: own,
    expiresAt: certificate.notAfter,
  });
});

test('a result holds no longer than the first certificate of the path', async () => {
  const intermediate = await root.intermediate({ notAfter: testNow + 1000 });
  const result = verifyX509Svid([await leaf({}, intermediate), intermediate.certificate], trust, testNow);
  assert.ok(result.valid);
  assert.equal(result.expiresAt, testNow + 1000);
});

for (const [what, template] of [
  ['DNS names beside the URI', { dnsNames: ['web.example.org'] }],
  ['no extended key usage', { extendedKeyUsage: null }],
  ['further key usages', { keyUsage: ['digitalSignature', 'keyEncipherment', 'keyAgreement'] }],
  ['further extended key usages', { extendedKeyUsage: [oids.serverAuth, oids.clientAuth, oids.codeSigning] }],
  ['a subject', { subject: 'C=US, O=SPIRE' }],
  ['an RSA key', { rsa: true }],
] as const satisfies readonly (readonly [string, CertificateTemplate])[]) {
  test(`a leaf with ${what} is valid`, async () => assertValid([await leaf(template)]));
}

for (const [what, template, reason, message] of [
  ['without a URI', { uris: [], dnsNames: ['example.org'] }, 'no_spiffe_id', /no URI/],
  [
    'with two URIs',
    { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] },
    'multiple_uri_sans',
    /2 URIs/,
  ],
  [
    'with one ID twice',
    { uris: ['spiffe://example.org/a', 'spiffe://example.org/a'] },
    'multiple_uri_sans',
    /2 URIs/,
  ],
  ['with a URI of another scheme', { uris: ['https://example.org/a'] }, 'invalid_spiffe_id', /spiffe:\/\//],
  ['with a dot segment', { uris: ['spiffe://example.org/a/../b'] }, 'invalid_spiffe_id', /dot segment/],
  ['with an empty fragment', { uris: ['spiffe://example.org/a#'] }, 'invalid_spiffe_id', /characters/],
  ['with the ID of the trust domain', { uris: ['spiffe://example.org'] }, 'invalid_spiffe_id', /no path/],
  ['that is a CA', { isCa: true }, 'leaf_is_ca', /cA/],
  ['without key usage', { keyUsage: null }, 'bad_key_usage', /no key usage/],
  ['without digitalSignature', { keyUsage: ['keyAgreement'] }, 'bad_key_usage', /digitalSignature/],
  ['with keyCertSign', { keyUsage: ['digitalSignature', 'keyCertSign'] }, 'bad_key_usage', /keyCertSign/],
  ['with cRLSign', { keyUsage: ['digitalSignature', 'cRLSign'] }, 'bad_key_usage', /cRLSign/],
  ['for servers only', { extendedKeyUsage: [oids.serverAuth] }, 'bad_key_usage', /clientAuth/],
  ['for clients only', { extendedKeyUsage: [oids.clientAuth] }, 'bad_key_usage', /serverAuth/],
  ['for signing code', { extendedKeyUsage: [oids.codeSigning] }, 'bad_key_usage', /serverAuth/],
  ['that has expired', { notAfter: testNow - 1000 }, 'expired', /2026-06-01T11:59:59/],
  ['that is not valid yet', { notBefore: testNow + 1000 }, 'not_yet_valid', /2026-06-01T12:00:01/],
  ['of a domain without a bundle', { uris: ['spiffe://elsewhere/a'] }, 'unknown_trust_domain', /elsewhere/],
  ['signed by another key of the same name', { signedBy: other }, 'untrusted_chain', /does not verify/],
  ['with an unknown critical extension', { extensions: [unknownCritical] }, 'untrusted_chain', /1\.2\.3\.4/],
  ['signed with SHA-1', { hash: 'SHA-1' }, 'untrusted_chain', /does not verify/],
] as const satisfies readonly (readonly [string, CertificateTemplate, X509Reason, RegExp])[]) {
  test(`a leaf ${what} is refused as ${reason}`, async () =>
    assertRefused(reason, message, [await leaf(template)]));
}

test('the certificate of an authority itself is refused as leaf_is_ca', () =>
  assertRefused('leaf_is_ca', /cA/, [root.certificate]));

test('an empty chain is malformed', () => assertRefused('malformed', /no certificate/, []));

test('a chain longer than 16 certificates is malformed', async () => {
  const certificate = await leaf();
  assertValid(Array.from({ length: 16 }, () => certificate));
  assertRefused(
    'malformed',
    /more than 16/,
    Array.from({ length: 17 }, () => certificate),
  );
});

test('a leaf is valid in its last millisecond and in its first', async () => {
  const certificate = await leaf({ notBefore: testNow, notAfter: testNow });
  assertValid([certificate]);
  assert.equal(verifyX509Svid([certificate], trust, testNow + 1).valid, false);
  assert.equal(verifyX509Svid([certificate], trust, testNow - 1).valid, false);
});

test('a leaf of an authority that the bundle lacks names issuer and remedy', async () => {
  const stranger = await createTestAuthority(own, { subject: 'CN=stranger' });
  assertRefused('untrusted_chain', /"CN=stranger".*send the intermediates along or add/, [
    await leaf({}, stranger),
  ]);
});

test('an authority of another trust domain cannot sign for this one', async () => {
  const bundles = x509Bundles(x509Bundle(own, [root]), x509Bundle('partner.example', [foreign]));
  assertValid([await leaf({ uris: ['spiffe://example.org/a'] })], bundles);
  assertValid([await leaf({ uris: ['spiffe://partner.example/a'] }, foreign)], bundles);
  assertRefused(
    'untrusted_chain',
    /neither/,
    [await leaf({ uris: ['spiffe://example.org/a'] }, foreign)],
    bundles,
  );
  assertRefused(
    'untrusted_chain',
    /neither/,
    [await leaf({ uris: ['spiffe://partner.example/a'] })],
    bundles,
  );
});

test('an empty bundle trusts nobody', async () =>
  assertRefused('untrusted_chain', /neither/, [await leaf()], x509Bundles(x509Bundle(own, []))));

test('the authority that sends itself along is not trusted for that', async () =>
  assertRefused('untrusted_chain', /./, [await leaf({}, other), other.certificate], trust));

test('authorities of one name are all tried', async () => {
  const bundles = x509Bundles(x509Bundle(own, [other, root]));
  assertValid([await leaf()], bundles);
  assertValid([await leaf({}, other)], bundles);
});

test('an RSA authority signs for EC leaves', async () => {
  const rsa = await createTestAuthority(own, { rsa: true });
  assertValid([await leaf({}, rsa)], trustIn(rsa));
});

test('a path leads through the intermediates sent along, in any order, or known beforehand', async () => {
  const upper = await root.intermediate();
  const lower = await upper.intermediate();
  const certificate = await leaf({}, lower);
  assertValid([certificate, lower.certificate, upper.certificate]);
  assertValid([certificate, upper.certificate, lower.certificate]);
  assertValid([certificate, upper.certificate, root.certificate, lower.certificate]);
  assertValid([certificate], trust, [upper.certificate, lower.certificate]);
  assertValid([certificate, lower.certificate], trust, [upper.certificate]);
  assertRefused('untrusted_chain', /neither/, [certificate, lower.certificate]);
  assertRefused('untrusted_chain', /neither/, [certificate, upper.certificate]);
  assertRefused('untrusted_chain', /neither/, [certificate]);
});

test('an intermediate in the bundle is an authority of its own', async () => {
  const intermediate = await root.intermediate();
  assertValid([await leaf({}, intermediate)], x509Bundles(x509Bundle(own, [intermediate])));
});

for (const [what, template, message] of [
  ['has expired', { notAfter: testNow - 1000 }, /has expired/],
  ['is not valid yet', { notBefore: testNow + 1000 }, /not valid yet/],
  ['is no CA', { isCa: false }, /no signing certificate/],
  ['lacks keyCertSign', { keyUsage: ['cRLSign'] }, /keyCertSign/],
  ['lacks key usage', { keyUsage: null }, /keyCertSign/],
  ['has an unknown critical extension', { extensions: [unknownCritical] }, /critical extension/],
  ['has the ID of a workload', { uris: ['spiffe://example.org/ca'] }, /SPIFFE ID/],
  ['has the ID of another domain', { uris: ['spiffe://partner.example'] }, /SPIFFE ID/],
  ['is signed by a stranger', { signedBy: other }, /does not verify/],
] as const satisfies readonly (readonly [string, CertificateTemplate, RegExp])[]) {
  test(`a path through an intermediate that ${what} is refused`, async () => {
    const intermediate = await root.intermediate(template);
    assertRefused('untrusted_chain', message, [await leaf({}, intermediate), intermediate.certificate]);
  });
  if (what === 'is signed by a stranger') continue;
  test(`a path to an authority that ${what} is refused`, async () => {
    const authority = await createTestAuthority(own, template);
    assertRefused(
      'untrusted_chain',
      message,
      [await leaf({}, authority)],
      x509Bundles(x509Bundle(own, [authority])),
    );
  });
}

test('a signing certificate needs no SPIFFE ID', async () => {
  const authority = await createTestAuthority(own, { uris: [] });
  const intermediate = await authority.intermediate({ uris: [] });
  const bundles = x509Bundles(x509Bundle(own, [authority]));
  assertValid([await leaf({}, intermediate), intermediate.certificate], bundles);
});

test('a workload cannot sign for another one', async () => {
  const workload = await root.intermediate({
    uris: ['spiffe://example.org/workload'],
    isCa: false,
    keyUsage: ['digitalSignature'],
  });
  const certificate = await leaf({ uris: ['spiffe://example.org/admin'] }, workload);
  assertRefused('untrusted_chain', /no signing certificate/, [certificate, workload.certificate]);
});

test('path length bounds the intermediates below', async () => {
  const zero = await createTestAuthority(own, { pathLength: 0 });
  const one = await createTestAuthority(own, { pathLength: 1 });
  for (const [authority, fits] of [
    [zero, false],
    [one, true],
  ] as const) {
    const bundles = trustIn(authority);
    assertValid([await leaf({}, authority)], bundles);
    const upper = await authority.intermediate();
    const chain = [await leaf({}, upper), upper.certificate];
    if (fits) assertValid(chain, bundles);
    else assertRefused('untrusted_chain', /no path this long/, chain, bundles);
    const lower = await upper.intermediate();
    assertRefused(
      'untrusted_chain',
      /no path this long/,
      [await leaf({}, lower), lower.certificate, upper.certificate],
      bundles,
    );
  }
});

test('an authority that signed its own new key does not count towards the length of a path', async () => {
  const subject = 'CN=authority';
  const old = await createTestAuthority(own, { subject, pathLength: 0 });
  const young = await old.intermediate({ subject });
  assertValid([await leaf({}, young), young.certificate], trustIn(old));
});

test('a path may be as long as a chain', async () => {
  const chain = [root];
  for (let top = root; chain.length < 16; chain.unshift(top)) top = await top.intermediate();
  const [issuer = root] = chain;
  assertValid([await leaf({}, issuer), ...chain.slice(0, -1).map(({ certificate }) => certificate)]);
});

test('certificates that all sign each other do not keep the search busy', async () => {
  const subject = 'CN=circle';
  const first = await root.intermediate({ subject });
  const circle = await Promise.all(
    Array.from({ length: 14 }, () => first.intermediate({ subject, keysOf: first })),
  );
  const chain = [await leaf({}, first), ...circle.map(({ certificate }) => certificate)];
  assertRefused('untrusted_chain', /too many signature checks/, chain);
  assertValid([...chain, first.certificate]);
});

test('a message stays short whatever names a peer made up', async () => {
  const stranger = await createTestAuthority(own, { subject: `CN=${'x'.repeat(20_000)}` });
  const result = verifyX509Svid([await leaf({}, stranger)], trust, testNow);
  assert.ok(!result.valid);
  assert.ok(result.message.length < 600);
});

test('a chain with any byte changed is never valid, and verifying it never throws', async () => {
  const intermediate = await root.intermediate();
  const chain = [await leaf({}, intermediate), intermediate.certificate];
  assertValid(chain);
  fc.assert(
    fc.property(fc.nat(1), fc.nat(), fc.integer({ min: 1, max: 255 }), (index, at, flip) => {
      const der = Buffer.from(chain[index]?.der ?? Buffer.of());
      der[at % der.length] = (der[at % der.length] ?? 0) ^ flip;
      let changed: Certificate;
      try {
        changed = parseCertificate(der);
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
        return;
      }
      const result = verifyX509Svid(chain.with(index, changed), trust, testNow);
      assert.equal(result.valid, false);
    }),
    { numRuns: 1000 },
  );
});
