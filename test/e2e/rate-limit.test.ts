import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, denied, devIdentity, entrypoint, server } from './world.ts';

test('a peer that asks too often gets 429 with Retry-After from a real Envoy, and others are served', async (t) => {
  const [mesh, often, seldom] = [await freePort(), await freePort(), await freePort()];
  const opa = await startOpa(t, {
    over: 'unix',
    files: { 'p.rego': 'package envoy.authz\n\nallow := true\n' },
  });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint, rate_limit: { requests_per_second: 0.01, burst: 2 } },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  const tls = { certificate: server, bundle: 'ROOTCA' };
  await startEnvoy(t, {
    config: combined(
      sidecar.socket,
      clientSide('often', allowed, often, mesh),
      clientSide('seldom', denied, seldom, mesh),
      { listeners: [httpListener({ name: 'server', port: mesh, tls, filters: [extAuthz()] })], clusters: [] },
    ),
  });
  const statuses: number[] = [];
  for (let i = 0; i < 3; i++) statuses.push((await http({ port: often, path: '/' })).status);
  assert.deepEqual(statuses, [200, 200, 429]);
  const limited = await http({ port: often, path: '/' });
  assert.match(String(limited.headers['retry-after']), /^(?:9\d|100)$/);
  assert.equal((await http({ port: seldom, path: '/' })).status, 200);
  await sidecar.process().waitForLine(/rate_limited/);
});
