import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import type { JwtBundleSet } from '../../src/spiffe/bundle.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { createWorkloadApiSource } from '../../src/workload/workload-api.ts';
import { startEnvoy } from '../support/envoy.ts';
import {
  credentialInjector,
  extAuthz,
  httpListener,
  plainCluster,
  type SdsProtocol,
} from '../support/envoy-config.ts';
import { http, type SeenRequest, startEchoUpstream } from '../support/http.ts';
import { startJwtIssuer } from '../support/jwt-issuer.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, denied, devIdentity, entrypoint, policy, server } from './world.ts';

/** The dev identity's Workload API, as other programs of the machine would use it. */
async function workloadApi(t: TestContext) {
  const address = `unix://${join(await tempDirectory(t), 'workload.sock')}`;
  const source = createWorkloadApiSource({
    address,
    sleep,
    random: Math.random,
    now: Date.now,
    log: silentLogger,
    meter: { updated() {}, failed() {}, answered() {} },
  });
  const signal = new AbortController().signal;
  return {
    address,
    async bundles(): Promise<JwtBundleSet> {
      for await (const event of source.watchJwtBundles(signal)) {
        if (event.kind === 'update') return event.value;
      }
      throw new Error('no JWT bundles');
    },
    async token(audience: string, spiffeId: string): Promise<string> {
      const svids = await source.fetchJwtSvids({ audiences: [audience] }, signal);
      const svid = svids.find((one) => one.spiffeId === spiffeId);
      assert.ok(svid !== undefined);
      return svid.token;
    },
  };
}

function bearerOf(request: SeenRequest | undefined): string {
  const header = request?.headers.authorization ?? '';
  assert.match(header, /^Bearer [^,]+$/);
  return header.slice('Bearer '.length);
}

/** Verifies a token as an upstream would, at this moment. */
async function verified(token: string, audience: string, bundles: JwtBundleSet) {
  const result = await verifyJwtSvid(token, [audience], bundles, Date.now());
  assert.ok(result.valid, result.valid ? '' : result.message);
  return result;
}

test("Envoy's credential injector sends a fresh, valid JWT-SVID upstream, also after renewals, by either protocol", async (t) => {
  const ttlMs = 4000;
  const [sotw, delta] = [await freePort(), await freePort()];
  const upstream = await startEchoUpstream(t);
  const workload = await workloadApi(t);
  const { socket } = await startSidecar(t, {
    config: {
      identity: devIdentity({ jwt_svid_ttl: `${ttlMs / 1000}s`, serve_workload_api: workload.address }),
      sds: { jwt_audiences: ['billing'] },
      ext_authz: { enabled: false },
    },
  });
  const listener = (name: string, port: number, protocol: SdsProtocol) =>
    httpListener({
      name,
      port,
      cluster: 'upstream',
      filters: [credentialInjector('jwt:billing', protocol)],
    });
  const envoy = await startEnvoy(t, {
    config: combined(socket, {
      listeners: [listener('sotw', sotw, 'GRPC'), listener('delta', delta, 'DELTA_GRPC')],
      clusters: [plainCluster('upstream', upstream.port)],
    }),
  });
  const bundles = await workload.bundles();

  const tokens = { [sotw]: new Set<string>(), [delta]: new Set<string>() };
  const fewest = () => Math.min(...Object.values(tokens).map(({ size }) => size));
  const end = Date.now() + 2.5 * ttlMs;
  while (Date.now() < end || fewest() < 3) {
    assert.ok(Date.now() < end + 10_000, `${fewest()} tokens only`);
    for (const port of [sotw, delta]) {
      const { status } = await http({ port, path: '/', headers: { authorization: 'Bearer forged' } });
      assert.equal(status, 200);
      const token = bearerOf(upstream.seen.at(-1));
      const { spiffeId, audiences } = await verified(token, 'billing', bundles);
      assert.equal(spiffeId, server);
      assert.deepEqual(audiences, ['billing']);
      tokens[port]?.add(token);
    }
    await sleep(100, new AbortController().signal);
  }
  assert.ok((await envoy.stat('sds.jwt_billing.update_success')) >= 3);
  assert.equal(await envoy.stat('sds.jwt_billing.update_rejected'), 0);
});

test('inject_jwt_svid adds a JWT-SVID that the upstream can verify, and no header of the client survives beside it', async (t) => {
  const [entry, port] = [await freePort(), await freePort()];
  const upstream = await startEchoUpstream(t);
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const workload = await workloadApi(t);
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ serve_workload_api: workload.address }),
      ext_authz: {
        path: entrypoint,
        inject_jwt_svid: [
          { match: { path: '/billing/*' }, audience: 'billing' },
          { match: { path: '/billing/*' }, audience: 'audit', header: 'x-audit-token', scheme: '' },
        ],
      },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  const tls = { certificate: server, bundle: 'ROOTCA' };
  await startEnvoy(t, {
    config: combined(sidecar.socket, clientSide('client', allowed, entry, port), {
      listeners: [httpListener({ name: 'server', port, cluster: 'upstream', tls, filters: [extAuthz()] })],
      clusters: [plainCluster('upstream', upstream.port)],
    }),
  });
  const bundles = await workload.bundles();
  const forged = { authorization: 'Bearer forged', 'x-audit-token': ['forged-1', 'forged-2'] };

  assert.equal((await http({ port: entry, path: '/billing/7', headers: forged })).status, 200);
  const seen = upstream.seen.at(-1);
  const token = bearerOf(seen);
  assert.equal((await verified(token, 'billing', bundles)).spiffeId, server);
  const audit = String(seen?.headers['x-audit-token']);
  assert.equal((await verified(audit, 'audit', bundles)).spiffeId, server);
  assert.equal(seen?.headers['x-peer'], allowed, "the policy's own headers are there, too");

  assert.equal((await http({ port: entry, path: '/other', headers: forged })).status, 200);
  assert.equal(upstream.seen.at(-1)?.headers.authorization, 'Bearer forged', 'no rule, no change');
  assert.equal((await http({ port: entry, path: '/other/../billing/7', headers: forged })).status, 403);

  assert.ok((await sidecar.metric('svidecar_jwt_svids_issued_total{kind="first"}')) >= 2);
  const output = sidecar.process().recentLines().join('\n');
  assert.match(output, /"outcome":"allowed"/);
  for (const secret of [token, audit, 'forged']) assert.ok(!output.includes(secret));
});

test('without a client certificate a JWT-SVID says who the peer is: allowed, denied or refused', async (t) => {
  const port = await freePort();
  const upstream = await startEchoUpstream(t);
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const workload = await workloadApi(t);
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ serve_workload_api: workload.address }),
      ext_authz: { path: entrypoint, peer: { jwt_svid: { audiences: ['api'] } } },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [httpListener({ name: 'plain', port, cluster: 'upstream', filters: [extAuthz()] })],
      clusters: [plainCluster('upstream', upstream.port)],
    }),
  });
  const call = async (authorization: string) =>
    (await http({ port, path: '/', headers: { authorization } })).status;

  const good = await workload.token('api', allowed);
  assert.equal(await call(`Bearer ${good}`), 200);
  assert.equal(upstream.seen.at(-1)?.headers['x-peer'], allowed);

  assert.equal(await call(`Bearer ${await workload.token('api', denied)}`), 403);
  await sidecar.process().waitForLine(/policy_denied/);
  assert.equal(await call(`Bearer ${await workload.token('other', allowed)}`), 403);
  await sidecar.process().waitForLine(/jwt_svid_invalid/);
  assert.equal(await call(`Bearer ${good.slice(0, -4)}AAAA`), 403);
  assert.equal(await call('Basic YTpi'), 403);
  await sidecar.process().waitForLine(/no_peer_identity/);
  assert.equal(upstream.seen.length, 1);
  assert.ok(!sidecar.process().recentLines().join('\n').includes(good));
});

test('a bridge takes the JWT of another issuer, and a JWT-SVID of the mapped ID goes on, or nothing', async (t) => {
  const port = await freePort();
  const upstream = await startEchoUpstream(t);
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': agentPolicy } });
  const workload = await workloadApi(t);
  const issuer = await startJwtIssuer(t);
  const agents = ['7', '8', 'blocked'].map((id) => `spiffe://acme.test/agent/${id}`);
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ spiffe_ids: [server, ...agents], serve_workload_api: workload.address }),
      ext_authz: {
        path: entrypoint,
        peer: { denied_identities: ['spiffe://acme.test/agent/blocked'] },
        bridge: [
          {
            match: { path: '/v1/*' },
            jwks_url: issuer.jwksUrl,
            issuer: issuer.issuer,
            audience: 'registry',
            spiffe_id: 'spiffe://acme.test/agent/{sub}',
            mint_audience: 'teg',
          },
        ],
      },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [httpListener({ name: 'plain', port, cluster: 'upstream', filters: [extAuthz()] })],
      clusters: [plainCluster('upstream', upstream.port)],
    }),
  });
  const bundles = await workload.bundles();
  const call = async (token: string | undefined, path = '/v1/balances') => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    return (await http({ port, path, headers })).status;
  };
  const reason = async (code: string) => {
    await sidecar.process().waitForLine(new RegExp(`"reason_code":"${code}"`));
  };

  const legacy = await issuer.sign({ sub: '7', aud: 'registry' });
  assert.equal(await call(legacy), 200);
  const seen = upstream.seen.at(-1);
  const minted = bearerOf(seen);
  assert.notEqual(minted, legacy);
  assert.equal((await verified(minted, 'teg', bundles)).spiffeId, agents[0]);
  assert.equal(seen?.headers['x-peer'], `${agents[0]} via bridge`, 'policy judged the mapped ID');

  // Each of these is refused, and nothing of it reaches the upstream.
  const before = upstream.seen.length;
  assert.equal(await call(await issuer.sign({ sub: 'blocked', aud: 'registry' })), 403);
  await reason('identity_denied');
  assert.equal(await call(await issuer.sign({ sub: 'nobody', aud: 'registry' })), 403);
  await reason('token_unavailable');
  assert.equal(await call(undefined), 403);
  await reason('no_peer_identity');
  for (const bad of [
    'rubbish',
    minted,
    `${legacy.slice(0, -4)}AAAA`,
    await issuer.sign({ sub: '7', aud: 'elsewhere' }),
    await issuer.sign({ sub: '7', aud: 'registry', iss: 'https://other.test' }),
    await issuer.sign({ sub: '7', aud: 'registry', exp: Math.floor(Date.now() / 1000) - 1 }),
    await issuer.sign({ sub: '../server', aud: 'registry' }),
    await issuer.sign({ aud: 'registry' }),
  ]) {
    assert.equal(await call(bad), 403);
  }
  await reason('jwt_svid_invalid');
  assert.equal(await call(legacy, '/v1/../other'), 403);
  await reason('unsafe_path');
  assert.equal(upstream.seen.length, before);

  const output = sidecar.process().recentLines().join('\n');
  for (const secret of [legacy, minted]) assert.ok(!output.includes(secret));
});

/** Lets agents pass and tells the upstream who it is; everybody else is denied. */
const agentPolicy = `package envoy.authz

default allow := false

allow := {"allowed": true, "headers": {"x-peer": sprintf("%s via %s", [source.id, source.via])}} if {
	source := input.spiffe.source
	startswith(source.id, "spiffe://acme.test/agent/")
}
`;
