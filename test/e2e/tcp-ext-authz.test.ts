import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startEnvoy } from '../support/envoy.ts';
import { plainCluster, tcpExtAuthz, tcpListener } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, denied, devIdentity, entrypoint, policy, server } from './world.ts';

test('a TCP listener lets an allowed peer through to the upstream and closes the connection of a denied one', async (t) => {
  const [allowedPort, deniedPort, port] = [await freePort(), await freePort(), await freePort()];
  const upstream = await startEchoUpstream(t);
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const config = combined(
    sidecar.socket,
    clientSide('allowed', allowed, allowedPort, port),
    clientSide('denied', denied, deniedPort, port),
    {
      listeners: [tcpListener({ name: 'server', port, cluster: 'upstream', tls, filters: [tcpExtAuthz()] })],
      clusters: [plainCluster('upstream', upstream.port)],
    },
  );
  const envoy = await startEnvoy(t, { config });

  assert.equal((await http({ port: allowedPort, path: '/' })).status, 200);
  assert.equal(upstream.seen.length, 1);
  assert.equal(await envoy.stat('ext_authz.authz.ok'), 1);

  assert.equal((await http({ port: deniedPort, path: '/' })).status, 503);
  assert.equal(upstream.seen.length, 1, 'the denied connection did not reach the upstream');
  assert.ok((await envoy.stat('ext_authz.authz.denied')) >= 1);
  assert.equal(await envoy.stat('ext_authz.authz.error'), 0);
  await sidecar.process().waitForLine(/policy_denied/);
});
