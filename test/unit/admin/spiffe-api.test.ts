import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Answer, Routes } from '../../../src/admin/http.ts';
import type { IdentityHistory } from '../../../src/admin/identity-history.ts';
import { createSpiffeRoutes, type SpiffeApiOptions } from '../../../src/admin/spiffe-api.ts';
import { AppError, MalformedError, UnavailableError } from '../../../src/runtime/errors.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { parseBundleDocument, parseJwks } from '../../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { emptySnapshot, type TrustSnapshot, usableDefaultSvid } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, jwtBundles, testNow, x509Bundle, x509Bundles } from '../../support/ca.ts';

const own = parseTrustDomain('example.org');
const web = parseSpiffeId('spiffe://example.org/web');
const authority = await createTestAuthority('example.org');
const intermediate = await authority.intermediate();
const partner = await createTestAuthority('partner.example');
const signer = await createJwtSigner({ keyId: 'key-1' });
const svid = await intermediate.svid(web, { hint: 'internal', through: [intermediate] });
const [leaf] = svid.chain;
const token = await signer.sign({ spiffeId: web, audiences: ['billing'], ttlMs: 60_000, now: testNow });

const held: TrustSnapshot = {
  version: 1,
  trustDomain: own,
  svids: [svid],
  intermediates: [intermediate.certificate],
  bundles: x509Bundles(x509Bundle('example.org', [authority]), x509Bundle('partner.example', [partner])),
  jwtBundles: jwtBundles({ 'example.org': [signer.authority] }),
};
const history: IdentityHistory = {
  rotatedAt: () => testNow - 1000,
  bundleChangedAt: () => testNow - 2000,
  run: () => Promise.resolve(),
};
const iso = (ms: number): string => new Date(ms).toISOString();

function routesOf(snapshot: TrustSnapshot, more: Partial<SpiffeApiOptions> = {}): Routes {
  return createSpiffeRoutes({
    snapshots: { current: () => snapshot, changes: () => assert.fail('not followed') },
    usableSvid: (of) => usableDefaultSvid(of, undefined, testNow),
    source: () => ({ name: 'workload_api', problem: undefined }),
    bundleInfo: () => undefined,
    history,
    events: { publish() {}, full: () => true, open: () => assert.fail('not opened') },
    tokens: { get: () => Promise.resolve(token) },
    now: () => testNow,
    ...more,
  });
}

async function ask(routes: Routes, target: string, body = ''): Promise<Answer> {
  const [path = '', query] = target.split('?');
  const route = routes.get(path);
  assert.ok(route !== undefined, path);
  assert.equal(route.method, path.startsWith('/spiffe/validate/') ? 'POST' : 'GET');
  const { signal } = new AbortController();
  const answer = await route.handle({ query: new URLSearchParams(query), body, signal });
  assert.ok('body' in answer);
  return answer;
}

async function jsonOf(routes: Routes, target: string, status: number, body?: unknown): Promise<unknown> {
  const answer = await ask(routes, target, body === undefined ? '' : JSON.stringify(body));
  assert.equal(answer.status, status, answer.body);
  assert.equal(answer.contentType, 'application/json');
  return JSON.parse(answer.body);
}

const agentGone = { source: () => ({ name: 'workload_api' as const, problem: 'no agent listens' }) };

describe('what is held', () => {
  it('is told by /spiffe/status', async () => {
    assert.deepEqual(await jsonOf(routesOf(held), '/spiffe/status', 200), {
      enabled: true,
      trust_domain: 'example.org',
      spiffe_id: web,
      source: 'workload_api',
    });
  });

  it('is not enabled without a Workload API, with its error, and says what is still in use', async () => {
    assert.deepEqual(await jsonOf(routesOf(emptySnapshot, agentGone), '/spiffe/status', 200), {
      enabled: false,
      trust_domain: null,
      spiffe_id: null,
      source: 'workload_api',
      error: 'no agent listens',
    });
    assert.deepEqual(await jsonOf(routesOf(held, agentGone), '/spiffe/status', 200), {
      enabled: false,
      trust_domain: 'example.org',
      spiffe_id: web,
      source: 'workload_api',
      error: 'no agent listens',
    });
  });

  it('is the X.509-SVID with its leaf, and the chain as PEM', async () => {
    assert.deepEqual(await jsonOf(routesOf(held), '/spiffe/svid/x509', 200), {
      spiffe_id: web,
      trust_domain: 'example.org',
      serial: leaf.serial,
      not_before: iso(leaf.notBefore),
      expires_at: iso(leaf.notAfter),
      hint: 'internal',
      certificate: encodeCertificatesPem([leaf]).toString(),
    });
    const chain = await ask(routesOf(held), '/spiffe/svid/x509/chain');
    assert.equal(chain.contentType, 'application/pem-certificate-chain');
    assert.equal(chain.body, encodeCertificatesPem(svid.chain).toString());
  });

  it('is the list of identities with the times of their rotation', async () => {
    assert.deepEqual(await jsonOf(routesOf(held), '/spiffe/workload', 200), {
      svids: [
        {
          spiffe_id: web,
          hint: 'internal',
          expires_at: iso(leaf.notAfter),
          rotated_at: iso(testNow - 1000),
        },
      ],
    });
  });

  it('is the own bundle as a SPIFFE bundle document, with the sequence that the source gave', async () => {
    const plain = await ask(routesOf(held), '/spiffe/.well-known/spiffe-bundle');
    const document = parseBundleDocument(plain.body, own);
    assert.deepEqual(
      document.x509.authorities.map(({ fingerprint }) => fingerprint),
      [authority.certificate.fingerprint],
    );
    assert.deepEqual(
      document.jwt.authorities.map(({ keyId }) => keyId),
      ['key-1'],
    );
    assert.equal(document.sequence, undefined);
    const bundleInfo = () => ({ source: 'files' as const, sequence: 7n, refreshHintS: 60 });
    const told = await ask(routesOf(held, { bundleInfo }), '/spiffe/.well-known/spiffe-bundle');
    assert.equal(parseBundleDocument(told.body, own).sequence, 7n);
    assert.equal(parseBundleDocument(told.body, own).refreshHintS, 60);
  });

  it('is every bundle, where it came from and since when', async () => {
    const routes = routesOf(held, {
      bundleInfo: (name) =>
        name === own
          ? undefined
          : {
              source: 'endpoint',
              sequence: 42n,
              refreshHintS: 300,
              fetchedAt: testNow - 5000,
              lastError: 'endpoint is slow',
            },
    });
    assert.deepEqual(await jsonOf(routes, '/spiffe/trust-bundle', 200), {
      trust_domains: {
        'example.org': {
          x509_authorities: [encodeCertificatesPem([authority.certificate]).toString()],
          jwt_authorities: [signer.authority.jwk],
          source: 'workload_api',
          fetched_at: iso(testNow - 2000),
        },
        'partner.example': {
          x509_authorities: [encodeCertificatesPem([partner.certificate]).toString()],
          jwt_authorities: [],
          sequence: 42,
          refresh_hint_s: 300,
          source: 'endpoint',
          fetched_at: iso(testNow - 5000),
          last_error: 'endpoint is slow',
        },
      },
    });
    assert.deepEqual(await jsonOf(routesOf(emptySnapshot), '/spiffe/trust-bundle', 200), {
      trust_domains: {},
    });
  });

  it('has a sequence that is a number as long as readers keep it exact, and text beyond', async () => {
    for (const [sequence, written] of [
      [9_007_199_254_740_991n, 9_007_199_254_740_991],
      [9_007_199_254_740_992n, '9007199254740992'],
      [18_446_744_073_709_551_615n, '18446744073709551615'],
    ] as const) {
      const bundleInfo = () => ({ source: 'endpoint' as const, sequence });
      const answer = await jsonOf(routesOf(held, { bundleInfo }), '/spiffe/trust-bundle', 200);
      const { trust_domains: domains } = answer as { trust_domains: Record<string, { sequence: unknown }> };
      assert.equal(domains['partner.example']?.sequence, written);
    }
  });

  it('is the own JWT authorities as a plain JWK Set', async () => {
    const { body } = await ask(routesOf(held), '/.well-known/jwks.json');
    assert.deepEqual(
      parseJwks(body, own).authorities.map(({ keyId }) => keyId),
      ['key-1'],
    );
  });

  it('is refused with 503 and the reason where there is nothing to give', async () => {
    for (const path of [
      '/spiffe/svid/x509',
      '/spiffe/svid/x509/chain',
      '/spiffe/svid/jwt?audience=a',
      '/spiffe/workload',
      '/spiffe/.well-known/spiffe-bundle',
      '/.well-known/jwks.json',
    ]) {
      assert.deepEqual(await jsonOf(routesOf(emptySnapshot, agentGone), path, 503), {
        error: 'no agent listens',
      });
    }
    const expired = routesOf(held, { usableSvid: () => undefined });
    assert.deepEqual(await jsonOf(expired, '/spiffe/svid/x509', 503), {
      error: 'no X509-SVID that is valid is held',
    });
  });

  it('never holds the private key', async () => {
    const routes = routesOf(held);
    const key = encodePrivateKeyPem(svid.privateKey).toString().split('\n')[1] ?? '';
    for (const [path, { method }] of routes) {
      if (method !== 'GET' || path === '/events') continue;
      const { body } = await ask(routes, `${path}?audience=billing`);
      assert.ok(!body.includes(key) && !body.includes('PRIVATE'), path);
    }
  });
});

describe('/spiffe/svid/jwt', () => {
  it('gives a JWT-SVID for the audience with its claims', async () => {
    const asked: unknown[] = [];
    const tokens: SpiffeApiOptions['tokens'] = {
      get: (key) => {
        asked.push(key);
        return Promise.resolve(token);
      },
    };
    assert.deepEqual(await jsonOf(routesOf(held, { tokens }), '/spiffe/svid/jwt?audience=billing', 200), {
      spiffe_id: web,
      audience: 'billing',
      jwt: token.token,
      expires_at: iso(token.expiresAt),
      claims: token.claims,
    });
    assert.deepEqual(asked, [{ audience: 'billing', spiffeId: web }]);
  });

  it('is 403 when it is not allowed, whatever is asked', async () => {
    for (const snapshot of [held, emptySnapshot]) {
      const routes = routesOf(snapshot, { tokens: undefined });
      for (const query of ['', '?audience=billing']) {
        assert.deepEqual(await jsonOf(routes, `/spiffe/svid/jwt${query}`, 403), {
          error: 'JWT-SVIDs are not given away here: admin.allow_jwt_svid is false',
        });
      }
    }
  });

  it('is 400 without exactly one audience', async () => {
    for (const query of ['', '?audience=', '?audience=a&audience=b', '?aud=a']) {
      await jsonOf(routesOf(held), `/spiffe/svid/jwt${query}`, 400);
    }
  });

  it('is 503 when the source does not issue one, 400 for an audience that it cannot', async () => {
    const failing = (failure: Error) => routesOf(held, { tokens: { get: () => Promise.reject(failure) } });
    const path = '/spiffe/svid/jwt?audience=a';
    assert.deepEqual(await jsonOf(failing(new UnavailableError('agent is away')), path, 503), {
      error: 'agent is away',
    });
    await jsonOf(failing(new AppError('permission_denied', 'no identity issued')), path, 503);
    await jsonOf(failing(new AppError('invalid_argument', 'audience is too long')), path, 400);
  });
});

describe('validation', () => {
  const x509 = (certificate: unknown, routes = routesOf(held)): Promise<unknown> =>
    jsonOf(routes, '/spiffe/validate/x509', 200, { certificate });
  const jwt = (members: object, routes = routesOf(held)): Promise<unknown> =>
    jsonOf(routes, '/spiffe/validate/jwt', 200, members);

  it('accepts a chain of our own trust domain, and a leaf below an intermediate of ours', async () => {
    const valid = {
      valid: true,
      spiffe_id: web,
      trust_domain: 'example.org',
      expires_at: iso(Math.min(leaf.notAfter, intermediate.certificate.notAfter)),
    };
    assert.deepEqual(await x509(encodeCertificatesPem(svid.chain).toString()), valid);
    assert.deepEqual(await x509(encodeCertificatesPem([leaf]).toString()), valid);
  });

  it('refuses a certificate with 200, a reason and a message', async () => {
    const { certificate: stranger } = await (await createTestAuthority('stranger.example')).leaf();
    const { certificate: expired } = await authority.leaf({ notAfter: testNow - 1 });
    const { certificate: nobody } = await authority.leaf({ uris: [] });
    const pem = (certificate: typeof stranger) => encodeCertificatesPem([certificate]).toString();
    for (const [certificate, reason] of [
      [pem(stranger), 'unknown_trust_domain'],
      [pem(expired), 'expired'],
      [pem(nobody), 'no_spiffe_id'],
      ['', 'malformed'],
      ['no PEM', 'malformed'],
      [encodePrivateKeyPem(svid.privateKey).toString(), 'malformed'],
      [pem(leaf).repeat(17), 'malformed'],
    ] as const) {
      const answer = (await x509(certificate)) as { valid: boolean; reason: string; message: string };
      assert.equal(answer.valid, false);
      assert.equal(answer.reason, reason);
      assert.ok(answer.message.length > 0);
      assert.deepEqual(Object.keys(answer).sort(), ['message', 'reason', 'valid']);
    }
  });

  it('accepts a JWT-SVID for its audience, and refuses one with 200 and a reason', async () => {
    assert.deepEqual(await jwt({ token: token.token, audience: 'billing' }), {
      valid: true,
      spiffe_id: web,
      claims: token.claims,
    });
    const other = await createJwtSigner({ keyId: 'key-1' });
    const forged = await other.sign({
      spiffeId: web,
      audiences: ['billing'],
      ttlMs: 60_000,
      now: testNow,
    });
    for (const [members, reason] of [
      [{ token: token.token, audience: 'other' }, 'audience_mismatch'],
      [{ token: forged.token, audience: 'billing' }, 'bad_signature'],
      [{ token: 'x.y.z', audience: 'billing' }, 'malformed'],
      [{ token: '', audience: 'billing' }, 'malformed'],
    ] as const) {
      const answer = (await jwt(members)) as { valid: boolean; reason: string };
      assert.equal(answer.valid, false);
      assert.equal(answer.reason, reason);
    }
  });

  it('without any bundle refuses as an unknown trust domain', async () => {
    const empty = routesOf(emptySnapshot, agentGone);
    const unknown = (answer: unknown) =>
      assert.equal((answer as { reason: string }).reason, 'unknown_trust_domain');
    unknown(await x509(encodeCertificatesPem([leaf]).toString(), empty));
    unknown(await jwt({ token: token.token, audience: 'billing' }, empty));
  });

  it('throws for a body that is not as it should be, which the server answers with 400', async () => {
    const good = { certificate: '', token: token.token, audience: 'billing' };
    for (const [path, body] of [
      ['/spiffe/validate/x509', ''],
      ['/spiffe/validate/x509', '[]'],
      ['/spiffe/validate/x509', '{}'],
      ['/spiffe/validate/x509', '{"certificate": 1}'],
      ['/spiffe/validate/x509', '{"certificate": "", "certificate": ""}'],
      ['/spiffe/validate/jwt', JSON.stringify({ ...good, token: undefined })],
      ['/spiffe/validate/jwt', JSON.stringify({ ...good, audience: undefined })],
      ['/spiffe/validate/jwt', JSON.stringify({ ...good, audience: ['billing'] })],
      ['/spiffe/validate/jwt', JSON.stringify({ ...good, audience: '' })],
    ] as const) {
      await assert.rejects(
        async () => ask(routesOf(held), path, body),
        (error) => error instanceof MalformedError && !error.message.includes(token.token),
        body,
      );
    }
  });

  it('answers any text in place of a certificate or token with a refusal', async () => {
    const routes = routesOf(held);
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        const answer = (await x509(text, routes)) as { valid: boolean };
        assert.equal(answer.valid, false);
        const other = (await jwt({ token: text, audience: 'billing' }, routes)) as { valid: boolean };
        assert.equal(other.valid, false);
      }),
    );
  });
});

describe('/events', () => {
  it('is 503 for one client too many', async () => {
    assert.deepEqual(await jsonOf(routesOf(held), '/events', 503), {
      error: 'too many clients listen to events',
    });
  });
});
