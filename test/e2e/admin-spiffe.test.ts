import assert from 'node:assert/strict';
import { get, type IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { createJwtSigner } from '../../src/spiffe/authority.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { startEnvoy } from '../support/envoy.ts';
import { httpListener, type Json, plainCluster } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { devIdentity, server, trustDomain } from './world.ts';

/** Envoy's own check of tokens, with the keys that our admin server publishes. */
function jwtAuthn(adminPort: number): Json {
  const provider = {
    audiences: ['billing'],
    remote_jwks: {
      http_uri: {
        uri: `http://127.0.0.1:${adminPort}/.well-known/jwks.json`,
        cluster: 'sidecar_admin',
        timeout: '2s',
      },
      cache_duration: '300s',
    },
  };
  return {
    name: 'envoy.filters.http.jwt_authn',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication',
      providers: { spiffe: provider },
      rules: [{ match: { prefix: '/' }, requires: { provider_name: 'spiffe' } }],
    },
  };
}

test("Envoy's jwt_authn accepts a JWT-SVID of ours by our JWK Set, and none of another key or audience", async (t) => {
  const sidecar = await startSidecar(t, {
    config: { identity: devIdentity(), ext_authz: { enabled: false } },
    env: { SVIDECAR_ADMIN_ALLOW_JWT_SVID: 'true' },
  });
  const { adminPort } = sidecar;
  const port = await freePort();
  await startEnvoy(t, {
    config: {
      listeners: [httpListener({ name: 'api', port, filters: [jwtAuthn(adminPort)] })],
      clusters: [plainCluster('sidecar_admin', adminPort)],
    },
  });
  const call = async (token: string): Promise<number> =>
    (await http({ port, path: '/', headers: { authorization: `Bearer ${token}` } })).status;
  const tokenFor = async (audience: string): Promise<string> => {
    const { status, body } = await sidecar.admin(`/spiffe/svid/jwt?audience=${audience}`);
    assert.equal(status, 200, body);
    return (JSON.parse(body) as { jwt: string }).jwt;
  };

  const token = await tokenFor('billing');
  assert.equal(await call(token), 200);
  assert.equal(await call(await tokenFor('other')), 403);
  const { keys } = JSON.parse((await sidecar.admin('/.well-known/jwks.json')).body) as {
    keys: readonly { kid: string }[];
  };
  const forger = await createJwtSigner({ keyId: keys[0]?.kid });
  const forged = await forger.sign({
    spiffeId: parseSpiffeId(server),
    audiences: ['billing'],
    ttlMs: 60_000,
    now: Date.now(),
  });
  assert.equal(await call(forged.token), 401);
  assert.equal(await call(`${token.slice(0, -4)}AAAA`), 401);
});

test('without a Workload API the admin server says so, and tells by events when there is one', async (t) => {
  const port = await freePort();
  const address = `tcp://127.0.0.1:${port}`;
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address } },
      ext_authz: { enabled: false },
    },
    waitForReady: false,
  });
  const status = async (): Promise<{ enabled: boolean; error?: string; spiffe_id: string | null }> =>
    JSON.parse((await sidecar.admin('/spiffe/status')).body) as { enabled: boolean; spiffe_id: null };
  const before = await until('a clear error', async () => {
    const told = await status();
    return told.error?.includes(String(port)) === true ? told : undefined;
  });
  assert.equal(before.enabled, false);
  assert.equal(before.spiffe_id, null);
  for (const path of ['/spiffe/svid/x509', '/spiffe/workload', '/.well-known/jwks.json']) {
    assert.equal((await sidecar.admin(path)).status, 503, path);
  }
  assert.equal((await sidecar.admin('/spiffe/svid/jwt?audience=a')).status, 403);

  const events = await listen(sidecar.adminPort);
  t.after(() => events.destroy());
  let heard = '';
  events.on('data', (chunk: Buffer) => {
    heard += chunk.toString();
  });
  await startSidecar(t, {
    name: 'dev Workload API',
    config: { identity: devIdentity({ serve_workload_api: address }), ext_authz: { enabled: false } },
  });
  await sidecar.waitForReady();
  await until('the events of the new identity', () =>
    /event: svid_update\ndata: .*spiffe:\/\/acme\.test\/server/.test(heard) && /bundle_update/.test(heard)
      ? true
      : undefined,
  );
  assert.ok(!heard.includes('PRIVATE'));
  const after = await status();
  assert.deepEqual([after.enabled, after.error, after.spiffe_id], [true, undefined, server]);
  const bundle = JSON.parse((await sidecar.admin('/spiffe/trust-bundle')).body) as {
    trust_domains: Record<string, { source: string }>;
  };
  assert.equal(bundle.trust_domains[trustDomain]?.source, 'workload_api');
});

function listen(port: number): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/events', agent: false }, resolve).once('error', reject);
  });
}
