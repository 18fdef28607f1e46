import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, type Json, plainCluster } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { buildWasmBundle, startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, denied, devIdentity, entrypoint, policy, server } from './world.ts';

const engines: Readonly<Record<string, (t: TestContext) => Promise<Json>>> = {
  'OPA over TCP': async (t) => {
    const { url } = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
    return { engine: 'opa', opa: { url } };
  },
  'OPA over a unix socket': async (t) => {
    const { url } = await startOpa(t, { over: 'unix', files: { 'policy.rego': policy } });
    return { engine: 'opa', opa: { url } };
  },
  'a wasm bundle': async (t) => {
    const file = join(await tempDirectory(t), 'bundle.tar.gz');
    await buildWasmBundle(t, { files: { 'policy.rego': policy }, entrypoints: [entrypoint], into: file });
    return { engine: 'wasm', bundle: { file } };
  },
};

for (const [name, startEngine] of Object.entries(engines)) {
  test(`with ${name} an allowed peer reaches the upstream and a denied one gets 403 with its reason in the decision log`, async (t) => {
    const upstream = await startEchoUpstream(t);
    const { sidecar, allowedPort, deniedPort } = await startMesh(t, await startEngine(t), upstream.port);

    const good = await http({
      port: allowedPort,
      path: '/balances/7?unit=cent',
      headers: { 'x-peer': 'forged' },
    });
    assert.equal(good.status, 200);
    assert.equal(upstream.seen.length, 1);
    assert.equal(upstream.seen[0]?.path, '/balances/7?unit=cent');
    assert.equal(
      upstream.seen[0]?.headers['x-peer'],
      allowed,
      'the header that policy sets replaces a forged one',
    );

    const bad = await http({ port: deniedPort, path: '/balances/7' });
    assert.equal(bad.status, 403);
    assert.equal(upstream.seen.length, 1, 'the denied request did not reach the upstream');

    const line = await sidecar.process().waitForLine(/policy_denied/);
    const logged = JSON.stringify(JSON.parse(line));
    assert.match(logged, /"reason":"not on the list"/);
    assert.match(logged, /"decision_id":"[\w-]+"/);
    assert.ok(logged.includes(denied));
    assert.ok(!logged.includes('BEGIN%20CERTIFICATE'), 'the certificate is redacted');
  });
}

/** Client and server in one Envoy: its plain listeners call its mTLS listener, which asks the sidecar. */
async function startMesh(
  t: TestContext,
  engine: Json,
  upstreamPort: number,
): Promise<{ sidecar: Sidecar; allowedPort: number; deniedPort: number }> {
  const [allowedPort, deniedPort, port] = [await freePort(), await freePort(), await freePort()];
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint, peer: { verify_certificate: 'required' } },
      policy: { ...engine, timeout: '2s' },
    },
  });
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const config = combined(
    sidecar.socket,
    clientSide('allowed', allowed, allowedPort, port),
    clientSide('denied', denied, deniedPort, port),
    {
      listeners: [httpListener({ name: 'server', port, cluster: 'upstream', tls, filters: [extAuthz()] })],
      clusters: [plainCluster('upstream', upstreamPort)],
    },
  );
  await startEnvoy(t, { config });
  return { sidecar, allowedPort, deniedPort };
}

test('a request without a peer identity is denied and policy is not asked', async (t) => {
  const port = await freePort();
  const opa = await startOpa(t, {
    over: 'tcp',
    files: { 'policy.rego': 'package envoy.authz\n\nallow := true\n' },
  });
  const sidecar = await startSidecar(t, {
    config: { identity: devIdentity(), ext_authz: { path: entrypoint }, policy: { opa: { url: opa.url } } },
  });
  const config = combined(sidecar.socket, {
    listeners: [httpListener({ name: 'plain', port, filters: [extAuthz()] })],
    clusters: [],
  });
  await startEnvoy(t, { config });

  assert.equal((await http({ port, path: '/' })).status, 403);
  await sidecar.process().waitForLine(/no_peer_identity/);
});
