import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { decodeCheckRequest } from '../../../../src/extauthz/check-request.ts';
import type { PeerResult } from '../../../../src/extauthz/peer/peer.ts';
import type { VerifyCertificate } from '../../../../src/extauthz/peer/peer-certificate.ts';
import { createXfccPeerSource } from '../../../../src/extauthz/peer/xfcc-peer.ts';
import { createTestAuthority, testNow } from '../../../support/ca.ts';
import {
  api,
  checkOnce,
  createTrust,
  getRequest,
  identities,
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

const proxy = 'spiffe://example.org/edge';

function ask(
  verifyCertificate: VerifyCertificate,
  header: string | undefined,
  principal = proxy,
): PeerResult | undefined {
  const source = createXfccPeerSource({ verifyCertificate, now: () => testNow });
  const headers = header === undefined ? {} : { 'x-forwarded-client-cert': header };
  const request = decodeCheckRequest(onTheWire(getRequest({ principal, headers })));
  const result = source(request, trust.snapshot, neverAborted);
  assert.ok(!(result instanceof Promise));
  return result;
}

function told(result: PeerResult | undefined): unknown {
  if (result === undefined) return undefined;
  return result.kind === 'deny' ? result.reasonCode : [result.peer.id, result.peer.via, result.peer.verified];
}

test('the peer is whom the last element names, not the proxy', () => {
  assert.deepEqual(told(ask('off', `URI=spiffe://example.org/forged,By=${proxy};URI=${web}`)), [
    web,
    'xfcc',
    false,
  ]);
  assert.deepEqual(told(ask('when_present', `URI=${web}`, '')), [web, 'xfcc', false]);
});

test('without the header a principal is the proxy and is refused; without either the next source is asked', () => {
  assert.equal(told(ask('off', undefined)), 'no_peer_identity');
  assert.equal(told(ask('off', undefined, '')), undefined);
});

for (const [what, header, code] of [
  ['no URI', 'By=x', 'no_peer_identity'],
  ['two URIs', `URI=${web};URI=${api}`, 'no_peer_identity'],
  ['a URI that is no SPIFFE ID', 'URI=https://example.org/', 'no_peer_identity'],
  ['an empty URI', 'URI=', 'no_peer_identity'],
  ['a URI in an earlier element only', `URI=${web},By=x`, 'no_peer_identity'],
  ['no grammar', 'URI="', 'malformed_request'],
  ['nothing in it', '', 'malformed_request'],
] as const) {
  test(`a header with ${what} is refused, whoever the connection is of`, () => {
    assert.equal(told(ask('off', header)), code);
    assert.equal(told(ask('when_present', header, web)), code);
  });
}

test('a certificate in the header is verified, and required when it must be', async () => {
  const { chain } = await trust.own.svid(web);
  const pem = urlEncodedPem(chain[0]);
  for (const key of ['Cert', 'Chain']) {
    assert.deepEqual(told(ask('required', `URI=${web};${key}="${pem}"`)), [web, 'xfcc', true]);
  }
  assert.equal(told(ask('required', `URI=${web}`)), 'untrusted_certificate');
  assert.equal(told(ask('when_present', `URI=${api};Cert="${pem}"`)), 'peer_mismatch');
  assert.equal(told(ask('when_present', `URI=${web};Cert="%%"`)), 'untrusted_certificate');
});

test('the chain in the header leads to an authority of the bundle, or it does not', async () => {
  const intermediate = await trust.own.intermediate();
  const { chain } = await intermediate.svid(web, { through: [intermediate] });
  const [leaf, all] = [urlEncodedPem(chain[0]), urlEncodedPem(...chain)];
  assert.deepEqual(told(ask('required', `URI=${web};Chain="${all}"`)), [web, 'xfcc', true]);
  assert.deepEqual(told(ask('required', `URI=${web};Cert="${leaf}";Chain="${all}"`)), [web, 'xfcc', true]);
  assert.equal(told(ask('required', `URI=${web};Chain="${leaf}"`)), 'untrusted_chain');
  const stranger = await createTestAuthority('example.org');
  const forged = await stranger.svid(web, { through: [stranger] });
  assert.equal(
    told(ask('required', `URI=${web};Chain="${urlEncodedPem(...forged.chain)}"`)),
    'untrusted_chain',
  );
});

test('a name with a comma in it, which Envoy writes as it is, makes nobody another one', async () => {
  const victim = urlEncodedPem((await trust.own.svid(web)).chain[0]);
  for (const names of [
    { uris: [`spiffe://partner.example/x,By=${proxy};Hash=00;Cert="${victim}";URI=${web}`] },
    { uris: [`spiffe://partner.example/x,By=a,URI=${web}`] },
    { uris: ['spiffe://partner.example/x'], dnsNames: [`a,URI=${web}`] },
  ]) {
    const { certificate } = await trust.partner.leaf(names);
    const written = [
      ...names.uris.map((uri) => `URI=${uri}`),
      ...(names.dnsNames ?? []).map((name) => `DNS=${name}`),
    ];
    const header = `By=${proxy};Hash=11;Cert="${urlEncodedPem(certificate)}";Subject="";${written.join(';')}`;
    for (const verification of ['when_present', 'required'] as const) {
      assert.equal(toldOf(verification, header), 'untrusted_certificate');
    }
  }
  const { certificate: honest } = await trust.partner.leaf({ dnsNames: ['x.example'] });
  const header = `Cert="${urlEncodedPem(honest)}";URI=spiffe://partner.example/workload,URI=${web};Cert="${victim}"`;
  assert.deepEqual(toldOf('required', header), [web, 'xfcc', true]);
  assert.equal(toldOf('when_present', `Cert="no",URI=${web}`), 'untrusted_certificate');
});

function toldOf(verification: VerifyCertificate, header: string): unknown {
  return told(ask(verification, header));
}

test('a denied proxy brings nobody in', async () => {
  const parts = {
    peerSources: [createXfccPeerSource({ verifyCertificate: 'off' as const, now: () => testNow })],
    rules: { denied: identities(proxy) },
  };
  const headers = { 'x-forwarded-client-cert': `URI=${web}` };
  const { outcome } = await checkOnce(trust, parts, getRequest({ principal: proxy, headers }));
  assert.equal(outcome.kind === 'refused' && outcome.refusal.reasonCode, 'identity_denied');
  const other = await checkOnce(trust, parts, getRequest({ principal: api, headers }));
  assert.equal(other.outcome.kind, 'allowed');
  assert.deepEqual(other.peer?.via, 'xfcc');
});
