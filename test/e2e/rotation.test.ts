import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseYaml } from '../../src/config/yaml.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { runTraffic } from '../../src/stack/traffic.ts';
import { sdsStat, startEnvoy } from '../support/envoy.ts';
import { type EnvoyConfig, extAuthz, httpListener } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { runCommand, type SidecarConfig, startSidecar, writeConfig } from '../support/sidecar.ts';
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

test('with the bootstraps that the program prints, traffic that never pauses outlives the certificates of its first handshake', async (t) => {
  const svidTtlMs = 6000;
  const [entry, port] = [await freePort(), await freePort()];
  const upstream = await startEchoUpstream(t);
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const config = (id: string): SidecarConfig => ({
    identity: devIdentity({ svid_ttl: `${svidTtlMs / 1000}s` }),
    policy: { opa: { url: opa.url }, timeout: '2s' },
    sds: { default_svid_name: id },
    ext_authz: { path: entrypoint, peer: { verify_certificate: 'required' } },
    decision_log: { console: false },
  });
  const { socket } = await startSidecar(t, { config: config('default') });
  const printed = async (id: string, ...flags: readonly string[]): Promise<EnvoyConfig> => {
    const file = await writeConfig(t, { ...config(id), listen: `unix://${socket}` });
    const { code, output } = await runCommand(t, 'bootstrap', '--config', file, ...flags);
    assert.equal(code, 0, output);
    return (parseYaml(output) as { static_resources: EnvoyConfig }).static_resources;
  };
  const [serverListener, clientListener] = [`127.0.0.1:${port}`, `127.0.0.1:${entry}`];
  await startEnvoy(t, {
    name: 'server envoy',
    config: await printed(server, '--listener', serverListener, '--upstream', `127.0.0.1:${upstream.port}`),
  });
  const pinned = ['--upstream', serverListener, '--upstream-spiffe-id', server];
  await startEnvoy(t, {
    name: 'client envoy',
    config: await printed(allowed, '--mode', 'client', '--listener', clientListener, ...pinned),
  });
  assert.equal((await http({ port: entry, path: '/' })).status, 200);

  const { sent, failures } = await runTraffic(
    {
      request: { port: entry, path: '/' },
      loops: 2,
      pauseMs: 10,
      requestsPerConnection: 20_000,
      maxRequests: 20_000,
      sleep,
    },
    AbortSignal.timeout(2.5 * svidTtlMs),
  );
  assert.deepEqual(failures.slice(0, 3), []);
  assert.ok(sent >= 500, `only ${sent} requests were sent`);
});
