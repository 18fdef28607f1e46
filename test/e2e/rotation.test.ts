import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep } from '../../src/runtime/abort.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { runTraffic } from '../../src/stack/traffic.ts';
import { sdsStat, startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener } from '../support/envoy-config.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, devIdentity, entrypoint, policy, server } from './world.ts';

test('certificates rotate three times under load without a failed request, and every new serial is seen on the wire', async (t) => {
  const [entry, port] = [await freePort(), await freePort()];
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ svid_ttl: '8s' }),
      policy: { opa: { url: opa.url }, timeout: '2s' },
      ext_authz: { path: entrypoint },
      decision_log: { console: false },
    },
  });
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const serverSide = {
    listeners: [httpListener({ name: 'server', port, tls, filters: [extAuthz()] })],
    clusters: [],
  };
  const serverEnvoy = await startEnvoy(t, {
    name: 'server envoy',
    config: combined(sidecar.socket, serverSide),
  });
  const client = combined(sidecar.socket, clientSide('client', allowed, entry, port));
  await startEnvoy(t, { name: 'client envoy', config: client });

  const stop = new AbortController();
  // The client Envoy opens a new connection every 20 requests, so that handshakes meet the rotation.
  const traffic = runTraffic(
    {
      request: { port: entry, path: '/' },
      loops: 4,
      pauseMs: 10,
      requestsPerConnection: 10,
      maxRequests: 20_000,
      sleep,
    },
    stop.signal,
  );
  const serials = new Set<string>();
  await until(
    'four serials on the wire',
    async () => {
      const { serial } = await probeTls({ port });
      if (serial !== undefined) serials.add(serial);
      return serials.size >= 4 ? true : undefined;
    },
    { timeoutMs: 40_000 },
  );
  stop.abort();

  const { sent, failures } = await traffic;
  assert.deepEqual(failures, []);
  assert.ok(sent >= 500, `only ${sent} requests were sent`);
  assert.equal(await serverEnvoy.stat(sdsStat(server, 'update_rejected')), 0);
  const [certificate] = await serverEnvoy.certificates();
  assert.ok(certificate !== undefined && serials.has(certificate.serial_number.toUpperCase()));
});
