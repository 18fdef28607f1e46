import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { decodeCheckRequest } from '../../../../src/extauthz/check-request.ts';
import { createMtlsPeerSource } from '../../../../src/extauthz/peer/mtls-peer.ts';
import type { PeerResult, PeerSource } from '../../../../src/extauthz/peer/peer.ts';
import type { VerifyCertificate } from '../../../../src/extauthz/peer/peer-certificate.ts';
import type { Certificate } from '../../../../src/spiffe/certificate.ts';
import type { TrustSnapshot } from '../../../../src/trust/snapshot.ts';
import { createTestAuthority, testNow, x509Bundle, x509Bundles } from '../../../support/ca.ts';
import {
  api,
  createTrust,
  getRequest,
  neverAborted,
  onTheWire,
  type Trust,
  urlEncodedPem,
  web,
} from '../harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

function ask(
  source: PeerSource,
  request: { principal?: string; certificate?: string; headers?: Record<string, string> },
  snapshot: TrustSnapshot = trust.snapshot,
): PeerResult | undefined {
  const result = source(decodeCheckRequest(onTheWire(getRequest(request))), snapshot, neverAborted);
  assert.ok(!(result instanceof Promise));
  return result;
}

function sourceWith(verifyCertificate: VerifyCertificate, now = () => testNow): PeerSource {
  return createMtlsPeerSource({ verifyCertificate, now });
}

function codeOf(result: PeerResult | undefined): string | undefined {
  return result?.kind === 'deny' ? result.reasonCode : result?.kind;
}

function messageOf(result: PeerResult | undefined): string {
  return result?.kind === 'deny' ? result.message : '';
}

test('a verified certificate makes a verified peer', async () => {
  const { chain } = await trust.own.svid(web);
  assert.deepEqual(ask(sourceWith('required'), { certificate: urlEncodedPem(chain[0]) }), {
    kind: 'peer',
    provenUntil: chain[0].notAfter,
    peer: { id: web, trustDomain: 'example.org', path: '/service/web', via: 'mtls', verified: true },
  });
});

test('without a certificate the peer is not verified, or refused when one is required', () => {
  const result = ask(sourceWith('when_present'), {});
  assert.equal(result?.kind === 'peer' && result.peer.verified, false);
  assert.equal(codeOf(result), 'peer');
  const refused = ask(sourceWith('required'), {});
  assert.equal(codeOf(refused), 'untrusted_certificate');
  assert.match(messageOf(refused), /include_peer_certificate/);
});

test('with verification off a certificate is not even read', () => {
  const result = ask(sourceWith('off'), { certificate: '%%% rubbish' });
  assert.equal(result?.kind === 'peer' && !result.peer.verified, true);
});

test('a principal that is no SPIFFE ID is nobody, whatever the certificate says', async () => {
  const certificate = urlEncodedPem((await trust.own.svid(web)).chain[0]);
  for (const principal of [
    '',
    'web.example.org',
    'CN=web',
    'SPIFFE://example.org/x',
    'spiffe://example.org//x',
  ]) {
    assert.equal(ask(sourceWith('required'), { principal, certificate }), undefined);
  }
});

test('a certificate is verified with the bundle of its own trust domain and no other', async () => {
  const partnerId = 'spiffe://partner.example/a';
  const good = urlEncodedPem((await trust.partner.svid(partnerId)).chain[0]);
  assert.equal(codeOf(ask(sourceWith('required'), { principal: partnerId, certificate: good })), 'peer');
  // Signed by an authority that is trusted, but for another domain.
  const forged = await trust.partner.leaf({ uris: [web] });
  const result = ask(sourceWith('required'), { certificate: urlEncodedPem(forged.certificate) });
  assert.equal(codeOf(result), 'untrusted_chain');
});

test('a domain without a bundle is untrusted', async () => {
  const stranger = await createTestAuthority('stranger.example');
  const id = 'spiffe://stranger.example/a';
  const result = ask(sourceWith('required'), {
    principal: id,
    certificate: urlEncodedPem((await stranger.svid(id)).chain[0]),
  });
  assert.equal(codeOf(result), 'untrusted_certificate');
  assert.match(messageOf(result), /stranger\.example/);
});

test('an unknown issuer is named, with what to do', async () => {
  const intermediate = await trust.own.intermediate({ subject: 'CN=unknown intermediate' });
  const result = ask(sourceWith('required'), {
    certificate: urlEncodedPem((await intermediate.svid(web)).chain[0]),
  });
  assert.equal(codeOf(result), 'untrusted_chain');
  assert.match(messageOf(result), /CN=unknown intermediate/);
  assert.match(messageOf(result), /verify_certificate/);
});

test('intermediates that the snapshot knows lead a lone leaf to its authority', async () => {
  const intermediate = await trust.own.intermediate();
  const certificate = urlEncodedPem((await intermediate.svid(web)).chain[0]);
  const snapshot = { ...trust.snapshot, intermediates: [intermediate.certificate] };
  assert.equal(codeOf(ask(sourceWith('required'), { certificate }, snapshot)), 'peer');
  assert.equal(codeOf(ask(sourceWith('required'), { certificate })), 'untrusted_chain');
});

test('a chain in x-forwarded-client-cert leads its own leaf to the authority, and no other one', async () => {
  const intermediate = await trust.own.intermediate();
  const { chain } = await intermediate.svid(web, { through: [intermediate] });
  const [other, stranger] = [await intermediate.svid(web), await createTestAuthority('example.org')];
  const certificate = urlEncodedPem(chain[0]);
  const askWith = (header: string) =>
    codeOf(ask(sourceWith('required'), { certificate, headers: { 'x-forwarded-client-cert': header } }));
  assert.equal(askWith(`By=x;URI=${web};Chain="${urlEncodedPem(...chain)}"`), 'peer');
  for (const header of [
    '',
    '"',
    'Chain="%%%"',
    `URI=${web};Chain="${certificate}"`,
    `Chain="${urlEncodedPem(...chain)}",URI=${web}`,
    `Chain="${urlEncodedPem(other.chain[0], intermediate.certificate)}"`,
    `Chain="${urlEncodedPem(chain[0], stranger.certificate)}"`,
  ]) {
    assert.equal(askWith(header), 'untrusted_chain', header.slice(0, 40));
  }
  const forged = await stranger.intermediate();
  const svid = await forged.svid(web, { through: [forged] });
  const result = ask(sourceWith('required'), {
    certificate: urlEncodedPem(svid.chain[0]),
    headers: {
      'x-forwarded-client-cert': `Chain="${urlEncodedPem(...svid.chain, stranger.certificate)}"`,
    },
  });
  assert.equal(codeOf(result), 'untrusted_chain', 'an authority that comes with the chain is none');
});

test('a certificate that is no X509-SVID is untrusted', async () => {
  const leaves = await Promise.all([
    trust.own.leaf({ uris: [web, api] }),
    trust.own.leaf({ uris: [], dnsNames: ['web.example.org'] }),
    trust.own.leaf({ uris: [web], isCa: true, keyUsage: ['keyCertSign'] }),
    trust.own.leaf({ uris: [web], notBefore: testNow + 60_000 }),
  ]);
  for (const leaf of leaves) {
    const result = ask(sourceWith('when_present'), { certificate: urlEncodedPem(leaf.certificate) });
    assert.equal(codeOf(result), 'untrusted_certificate');
  }
});

test('broken certificate text is a refusal, never an error', async () => {
  const good = urlEncodedPem((await trust.own.svid(web)).chain[0]);
  for (const certificate of [
    'x',
    '%',
    '%zz',
    '%FF',
    good.slice(0, 300),
    good.replaceAll('A', 'B'),
    '-----BEGIN',
  ]) {
    const result = ask(sourceWith('when_present'), { certificate });
    assert.ok(result?.kind === 'deny', certificate.slice(0, 20));
  }
});

test('the certificate must be for the principal', async () => {
  const certificate = urlEncodedPem((await trust.own.svid(api)).chain[0]);
  const result = ask(sourceWith('when_present'), { principal: web, certificate });
  assert.equal(codeOf(result), 'peer_mismatch');
  assert.ok(messageOf(result).includes(web) && messageOf(result).includes(api));
  // Having seen it before for its own principal does not help.
  const source = sourceWith('when_present');
  assert.equal(codeOf(ask(source, { principal: api, certificate })), 'peer');
  assert.equal(codeOf(ask(source, { principal: web, certificate })), 'peer_mismatch');
});

test('a certificate that expires while it is remembered is refused', async () => {
  let now = testNow;
  const source = sourceWith('when_present', () => now);
  const leaf = await trust.own.leaf({ uris: [web], notAfter: testNow + 60_000 });
  const certificate = urlEncodedPem(leaf.certificate);
  assert.equal(codeOf(ask(source, { certificate })), 'peer');
  now += 61_000;
  const result = ask(source, { certificate });
  assert.equal(codeOf(result), 'untrusted_certificate');
  assert.match(messageOf(result), /expired at .*max_connection_duration/);
});

test('an authority that expires while its leaf is remembered ends the trust', async () => {
  let now = testNow;
  const short = await createTestAuthority('example.org', { notAfter: testNow + 60_000 });
  const snapshot = { ...trust.snapshot, bundles: x509Bundles(x509Bundle('example.org', [short])) };
  const source = sourceWith('when_present', () => now);
  const certificate = urlEncodedPem((await short.svid(web)).chain[0]);
  assert.equal(codeOf(ask(source, { certificate }, snapshot)), 'peer');
  now += 61_000;
  assert.equal(codeOf(ask(source, { certificate }, snapshot)), 'untrusted_chain');
});

test('a certificate that is not valid yet passes once it is', async () => {
  let now = testNow;
  const source = sourceWith('when_present', () => now);
  const leaf = await trust.own.leaf({ uris: [web], notBefore: testNow + 60_000 });
  const certificate = urlEncodedPem(leaf.certificate);
  assert.equal(codeOf(ask(source, { certificate })), 'untrusted_certificate');
  now += 61_000;
  assert.equal(codeOf(ask(source, { certificate })), 'peer');
});

test('a new snapshot takes back what an old one trusted', async () => {
  const source = sourceWith('when_present');
  const certificate = urlEncodedPem((await trust.own.svid(web)).chain[0]);
  assert.equal(codeOf(ask(source, { certificate })), 'peer');
  const other = await createTestAuthority('example.org');
  const rotated = {
    ...trust.snapshot,
    version: 2,
    bundles: x509Bundles(x509Bundle('example.org', [other])),
  };
  assert.equal(codeOf(ask(source, { certificate }, rotated)), 'untrusted_chain');
  assert.equal(codeOf(ask(source, { certificate }, { ...trust.snapshot, version: 3 })), 'peer');
});

test('what is remembered is bounded and still right when it was forgotten', async () => {
  const source = createMtlsPeerSource({
    verifyCertificate: 'when_present',
    maxCachedCertificates: 2,
    now: () => testNow,
  });
  const certificates = await Promise.all(
    Array.from({ length: 4 }, async () => urlEncodedPem((await trust.own.svid(web)).chain[0])),
  );
  for (const certificate of [...certificates, ...certificates]) {
    assert.equal(codeOf(ask(source, { certificate })), 'peer');
  }
});

test('a revoked certificate is refused once the CRL is held, others of its authority pass on', async () => {
  const [revoked, other] = [await trust.own.svid(web), await trust.own.svid(web)];
  const source = sourceWith('required');
  const check = (leaf: typeof revoked, snapshot: TrustSnapshot): PeerResult | undefined =>
    ask(source, { certificate: urlEncodedPem(leaf.chain[0]) }, snapshot);
  assert.equal(codeOf(check(revoked, trust.snapshot)), 'peer');
  const held: TrustSnapshot = {
    ...trust.snapshot,
    version: trust.snapshot.version + 1,
    bundles: x509Bundles(x509Bundle('example.org', [trust.own], [await trust.own.crl([revoked.chain[0]])])),
  };
  assert.equal(codeOf(check(revoked, held)), 'untrusted_chain');
  assert.match(messageOf(check(revoked, held)), /is revoked/);
  assert.equal(codeOf(check(other, held)), 'peer');
});

test('a refused certificate is looked at again after a second, and at once with another chain behind it', async () => {
  let now = testNow;
  const intermediate = await trust.own.intermediate();
  const { certificate: leaf } = await intermediate.leaf({ uris: [web] });
  const source = sourceWith('required', () => now);
  const check = (options: { leaf: Certificate; chain?: string }): string | undefined =>
    codeOf(
      ask(source, {
        certificate: urlEncodedPem(options.leaf),
        ...(options.chain === undefined ? {} : { headers: { 'x-forwarded-client-cert': options.chain } }),
      }),
    );
  assert.equal(check({ leaf }), 'untrusted_chain');
  const chain = `Chain="${urlEncodedPem(leaf, intermediate.certificate)}"`;
  assert.equal(check({ leaf, chain }), 'peer');
  const soon = await trust.own.leaf({ uris: [web], notBefore: testNow + 1_000 });
  assert.equal(check({ leaf: soon.certificate }), 'untrusted_certificate');
  now += 999;
  assert.equal(check({ leaf: soon.certificate }), 'untrusted_certificate');
  now += 1;
  assert.equal(check({ leaf: soon.certificate }), 'peer');
});
