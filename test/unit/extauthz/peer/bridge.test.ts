import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createCredentials, type InjectRule } from '../../../../src/extauthz/credentials.ts';
import { reasonCodeOf } from '../../../../src/extauthz/outcome.ts';
import { type BridgeRule, createBridgePeerSource } from '../../../../src/extauthz/peer/bridge.ts';
import type { IssuerKeys } from '../../../../src/extauthz/peer/issuer-keys.ts';
import { parseIssuerKeys } from '../../../../src/extauthz/peer/issuer-keys.ts';
import { createMtlsPeerSource } from '../../../../src/extauthz/peer/mtls-peer.ts';
import { compileRequestRules } from '../../../../src/policy/request-rules.ts';
import { AppError, UnavailableError } from '../../../../src/runtime/errors.ts';
import type { JwtAuthority } from '../../../../src/spiffe/bundle.ts';
import { parseIdTemplate } from '../../../../src/spiffe/id-template.ts';
import type { JwtSvidKey } from '../../../../src/tokens/cache-entries.ts';
import { testNow } from '../../../support/ca.ts';
import { createJwtIssuer, type JwtIssuer } from '../../../support/jwt-issuer.ts';
import {
  api,
  type CheckerParts,
  checkOnce,
  createTrust,
  functionEngine,
  getRequest,
  identities,
  type Trust,
  web,
} from '../harness.ts';

const agent = 'spiffe://example.org/agent/7';

describe('a bridge', () => {
  let trust: Trust;
  let issuer: JwtIssuer;
  let issuerKeys: readonly JwtAuthority[];

  before(async () => {
    trust = await createTrust();
    issuer = await createJwtIssuer();
    issuerKeys = parseIssuerKeys(issuer.jwks());
  });

  const exp = testNow / 1000 + 60;
  const token = (claims: object = {}) => issuer.sign({ sub: '7', aud: 'registry', exp, ...claims });

  type Options = CheckerParts & {
    keys?: Partial<IssuerKeys>;
    rule?: Partial<BridgeRule>;
    inject?: readonly InjectRule[];
    mint?: (key: JwtSvidKey) => Promise<string>;
    principal?: string;
    path?: string;
  };

  function check(headers: Record<string, string>, options: Options = {}) {
    const { keys, rule, inject = [], mint, principal = '', path = '/v1/balances', ...parts } = options;
    const held = () => Promise.resolve(issuerKeys);
    const rules = compileRequestRules<BridgeRule>(
      [
        {
          match: { path: '/v1/*' },
          issuer: issuer.issuer,
          audience: 'registry',
          header: 'authorization',
          spiffeId: parseIdTemplate('spiffe://example.org/agent/{sub}'),
          mintAudience: 'teg',
          keys: { current: held, refreshed: held, ...keys },
          ...rule,
        },
      ],
      'ext_authz.bridge',
    );
    const now = () => testNow;
    return checkOnce(
      trust,
      {
        peerSources: [
          createBridgePeerSource({ rules, now }),
          createMtlsPeerSource({ verifyCertificate: 'when_present', now }),
        ],
        credentials: createCredentials({
          rules: compileRequestRules(inject, 'ext_authz.inject_jwt_svid'),
          mint: mint ?? (({ audience, spiffeId }) => Promise.resolve(`${spiffeId} for ${audience}`)),
          defaultSvidHint: undefined,
        }),
        ...parts,
      },
      getRequest({ principal, path, headers }),
    );
  }
  const bearer = async (claims?: object) => ({ authorization: `Bearer ${await token(claims)}` });

  it('makes the mapped ID the peer, and puts its JWT-SVID in the place of the JWT', async () => {
    const { peer, outcome } = await check(await bearer());
    assert.deepEqual([peer?.id, peer?.via, peer?.verified], [agent, 'bridge', true]);
    assert.ok(outcome.kind === 'allowed');
    assert.deepEqual(outcome.credentials, [{ name: 'authorization', value: `Bearer ${agent} for teg` }]);
  });

  it('writes a bare token where it found one', async () => {
    const { outcome } = await check({ 'x-token': await token() }, { rule: { header: 'x-token' } });
    assert.ok(outcome.kind === 'allowed');
    assert.deepEqual(outcome.credentials, [{ name: 'x-token', value: `${agent} for teg` }]);
  });

  it('goes before an injection into the same header; one into another header is made beside it', async () => {
    const inject = ['authorization', 'x-gateway'].map((header) => ({
      match: {},
      header,
      scheme: 'Bearer',
      audience: 'teg',
    }));
    const { outcome } = await check(await bearer(), { inject });
    assert.ok(outcome.kind === 'allowed');
    assert.deepEqual(outcome.credentials, [
      { name: 'authorization', value: `Bearer ${agent} for teg` },
      { name: 'x-gateway', value: `Bearer ${api} for teg` },
    ]);
  });

  it('shows the policy the mapped peer, never the identity that holds the connection', async () => {
    let seen: unknown;
    const engine = functionEngine((_path, input) => {
      seen = (input as { spiffe: { source: unknown } }).spiffe.source;
      return { kind: 'result', value: true };
    });
    await check(await bearer(), { engine, principal: web });
    const expected = {
      id: agent,
      trust_domain: 'example.org',
      path: '/agent/7',
      via: 'bridge',
      verified: true,
    };
    assert.deepEqual(seen, expected);
  });

  it('has the mapped ID pass the identity rules', async () => {
    const denied = await check(await bearer(), { rules: { denied: identities(agent) } });
    assert.equal(reasonCodeOf(denied.outcome), 'identity_denied');
    const notAllowed = await check(await bearer(), { rules: { allowed: identities(web) } });
    assert.equal(reasonCodeOf(notAllowed.outcome), 'identity_not_allowed');
  });

  it('does not let a denied identity in with the JWT of somebody else', async () => {
    const trace = await check(await bearer(), { principal: web, rules: { denied: identities(web) } });
    assert.equal(reasonCodeOf(trace.outcome), 'identity_denied');
  });

  it('does not let a denied identity in that a trusted proxy tells of', async () => {
    const named = async (xfcc: string, rules = { denied: identities(web) }) => {
      const headers = { ...(await bearer()), 'x-forwarded-client-cert': xfcc };
      const { outcome } = await check(headers, { principal: api, trustXfcc: true, rules, dryRun: true });
      return reasonCodeOf(outcome);
    };
    assert.equal(await named(`URI=${agent},URI=${web}`), 'identity_denied');
    assert.equal(await named(`URI=${agent};URI=${web}`), 'identity_denied');
    assert.equal(await named(`URI=${api}`), undefined);
    assert.equal(await named(`URI=${web}`, { denied: identities() }), undefined);
    assert.equal(await named(`URI=${web};=`), 'malformed_request', 'nobody can tell who it is');
  });

  it('never asks for another ID than the mapped one, and a refusal of it is a denial', async () => {
    const asked: JwtSvidKey[] = [];
    const mint = (key: JwtSvidKey) => {
      asked.push(key);
      return Promise.reject(new AppError('permission_denied', 'no identity issued'));
    };
    const trace = await check(await bearer(), { mint, dryRun: true, principal: web });
    assert.equal(trace.outcome.kind, 'refused');
    assert.equal(reasonCodeOf(trace.outcome), 'token_unavailable');
    assert.deepEqual(asked, [{ spiffeId: agent, audience: 'teg' }]);
  });

  it('denies a request without a JWT, also where no peer is required or the connection has one', async () => {
    for (const options of [{ rules: { requirePeer: false } }, { principal: web }, { dryRun: true }]) {
      for (const headers of [{}, { authorization: 'Basic YTpi' }] as Record<string, string>[]) {
        const { outcome } = await check(headers, options);
        assert.equal(outcome.kind, 'refused');
        assert.equal(reasonCodeOf(outcome), 'no_peer_identity');
      }
    }
  });

  it('denies a JWT that does not hold, and a subject that is no segment', async () => {
    for (const claims of [
      { aud: 'other' },
      { iss: 'https://evil.test' },
      { exp: testNow / 1000 },
      { sub: '../service/web' },
      { sub: 'a/b' },
      { sub: '' },
    ]) {
      const trace = await check(await bearer(claims), { dryRun: true, principal: web });
      assert.equal(reasonCodeOf(trace.outcome), 'jwt_svid_invalid', JSON.stringify(claims));
      assert.equal(trace.outcome.kind, 'refused');
    }
  });

  it('looks for newer keys when the key of the JWT is unknown, once', async () => {
    let looks = 0;
    const keys = {
      current: () => Promise.resolve([]),
      refreshed: () => {
        looks += 1;
        return Promise.resolve(issuerKeys);
      },
    };
    assert.equal((await check(await bearer(), { keys })).outcome.kind, 'allowed');
    assert.equal(looks, 1);
    const none = { ...keys, refreshed: () => Promise.resolve([]) };
    assert.equal(reasonCodeOf((await check(await bearer(), { keys: none })).outcome), 'jwt_svid_invalid');
  });

  it('denies while keys cannot be had, within the timeout and whatever dry-run says', async () => {
    const failing = { current: () => Promise.reject(new UnavailableError('issuer is away')) };
    const away = await check(await bearer(), { keys: failing, dryRun: true });
    assert.equal(away.outcome.kind, 'refused');
    assert.equal(reasonCodeOf(away.outcome), 'token_unavailable');
    const hanging = { current: () => new Promise<never>(() => {}) };
    const slow = await check(await bearer(), { keys: hanging, timeoutMs: 10, dryRun: true });
    assert.equal(slow.outcome.kind, 'refused');
    assert.equal(reasonCodeOf(slow.outcome), 'token_unavailable');
  });

  it('is not for requests that it does not fit, and cannot be walked around', async () => {
    const other = await check(await bearer(), { path: '/other', principal: web });
    assert.equal(other.peer?.via, 'mtls');
    const around = await check(await bearer(), { path: '/other/../v1/x', principal: web });
    assert.equal(reasonCodeOf(around.outcome), 'unsafe_path');
  });

  it('keeps the JWT out of whatever is said about it', async () => {
    const { authorization } = await bearer({ aud: 'other' });
    const { outcome } = await check({ authorization });
    assert.ok(!JSON.stringify(outcome).includes(authorization.slice(7, 60)));
  });
});
