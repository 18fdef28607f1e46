import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { reasonCodeOf } from '../../../../src/extauthz/outcome.ts';
import { createJwtPeerSource } from '../../../../src/extauthz/peer/jwt-peer.ts';
import { createMtlsPeerSource } from '../../../../src/extauthz/peer/mtls-peer.ts';
import { createJwtSigner, type JwtSigner } from '../../../../src/spiffe/authority.ts';
import { parseSpiffeId, parseTrustDomain, trustDomainOf } from '../../../../src/spiffe/spiffe-id.ts';
import { testNow } from '../../../support/ca.ts';
import { checkOnce, createTrust, getRequest, identities, type Trust, web } from '../harness.ts';

describe('a JWT-SVID as the peer', () => {
  let trust: Trust;
  let own: JwtSigner;
  let partner: JwtSigner;

  before(async () => {
    const base = await createTrust();
    [own, partner] = [await createJwtSigner(), await createJwtSigner()];
    const bundle = (name: string, { authority }: JwtSigner) => {
      const trustDomain = parseTrustDomain(name);
      return [trustDomain, { trustDomain, authorities: [authority] }] as const;
    };
    const jwtBundles = new Map([bundle('example.org', own), bundle('partner.example', partner)]);
    trust = { ...base, snapshot: { ...base.snapshot, jwtBundles } };
  });

  const token = async (signer: JwtSigner, id: string, audience = 'api', now = testNow) =>
    (await signer.sign({ spiffeId: parseSpiffeId(id), audiences: [audience], ttlMs: 60_000, now })).token;
  const sources = (header = 'authorization') => [
    createMtlsPeerSource({ verifyCertificate: 'when_present', now: () => testNow }),
    createJwtPeerSource({ header, audiences: ['api', 'web'], now: () => testNow }),
  ];
  const check = (
    headers: Record<string, string>,
    options: { principal?: string; header?: string; dryRun?: boolean; rules?: object } = {},
  ) =>
    checkOnce(
      trust,
      { peerSources: sources(options.header), dryRun: options.dryRun ?? false, rules: options.rules ?? {} },
      getRequest({ principal: options.principal ?? '', headers }),
    );

  it('is taken from the header, verified by the bundle of its own trust domain', async () => {
    const { peer, outcome } = await check({ authorization: `Bearer ${await token(own, web)}` });
    assert.equal(outcome.kind, 'allowed');
    assert.deepEqual(peer, {
      id: web,
      trustDomain: trustDomainOf(parseSpiffeId(web)),
      path: '/service/web',
      via: 'jwt_svid',
      verified: true,
    });
    const custom = await check({ 'x-jwt-svid': await token(own, web) }, { header: 'x-jwt-svid' });
    assert.equal(custom.peer?.id, web);
  });

  it('goes through the identity rules like any other peer', async () => {
    const headers = { authorization: `Bearer ${await token(own, web)}` };
    const denied = await check(headers, { rules: { denied: identities(web) } });
    assert.equal(reasonCodeOf(denied.outcome), 'identity_denied');
    const foreign = await check({
      authorization: `Bearer ${await token(partner, 'spiffe://partner.example/a')}`,
    });
    assert.equal(reasonCodeOf(foreign.outcome), 'foreign_trust_domain');
  });

  it('that does not hold is a denial, never a stranger and never lifted by dry-run', async () => {
    const bad = {
      'for another audience': await token(own, web, 'other'),
      expired: await token(own, web, 'api', testNow - 60_000),
      'signed by another trust domain': await token(partner, web),
      rubbish: 'rubbish',
      'two tokens': `${await token(own, web)},Bearer ${await token(own, web)}`,
    };
    for (const [name, value] of Object.entries(bad)) {
      const trace = await check(
        { authorization: `Bearer ${value}` },
        { dryRun: true, rules: { requirePeer: false } },
      );
      assert.equal(trace.outcome.kind, 'refused', name);
      assert.equal(reasonCodeOf(trace.outcome), 'jwt_svid_invalid', name);
      assert.ok(!JSON.stringify(trace.outcome).includes(value.slice(0, 60)) || value === 'rubbish', name);
    }
  });

  it('is not read beside a principal, whatever it is', async () => {
    const { peer } = await check({ authorization: 'Bearer rubbish' }, { principal: web });
    assert.equal(peer?.via, 'mtls');
  });

  it('is read beside a principal that is no SPIFFE ID', async () => {
    const headers = { authorization: `Bearer ${await token(own, web)}` };
    assert.equal((await check(headers, { principal: 'client.example.org' })).peer?.via, 'jwt_svid');
  });

  it('that is not there leaves the peer unknown', async () => {
    for (const headers of [{}, { authorization: 'Basic YTpi' }]) {
      assert.equal(
        reasonCodeOf((await check(headers as Record<string, string>)).outcome),
        'no_peer_identity',
      );
    }
  });
});
