import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { type Envoy, startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, devIdentity, entrypoint, policy, server } from './world.ts';

type Mesh = Readonly<{
  /** Serves the Workload API, from an embedded CA. */
  issuer: Sidecar;
  /** The sidecar under test, fed by the Workload API. */
  sidecar: Sidecar;
  envoy: Envoy;
  port: number;
  status: () => Promise<number>;
}>;

async function startMesh(t: TestContext, { restartsHot = false } = {}): Promise<Mesh> {
  const directory = await tempDirectory(t);
  const workloadApi = `unix://${join(directory, 'workload.sock')}`;
  const file = join(directory, 'bundle.tar.gz');
  await buildWasmBundle(t, { files: { 'policy.rego': policy }, entrypoints: [entrypoint], into: file });
  const issuer = await startSidecar(t, {
    name: 'issuer',
    config: { identity: devIdentity({ serve_workload_api: workloadApi }), ext_authz: { enabled: false } },
  });
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: workloadApi } },
      ext_authz: { path: entrypoint, peer: { verify_certificate: 'required' } },
      policy: { engine: 'wasm', bundle: { file }, timeout: '2s' },
    },
  });
  const [entry, port] = [await freePort(), await freePort()];
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const config = combined(sidecar.socket, clientSide('client', allowed, entry, port), {
    listeners: [httpListener({ name: 'server', port, tls, filters: [extAuthz()] })],
    clusters: [],
  });
  const envoy = await startEnvoy(t, { config, restartsHot });
  const status = async (): Promise<number> => (await http({ port: entry, path: '/' })).status;
  assert.equal(await status(), 200);
  return { issuer, sidecar, envoy, port, status };
}

test('an Envoy that is killed and started again gets its secrets again', async (t) => {
  const { envoy, status } = await startMesh(t);
  await envoy.process().crash();
  await assert.rejects(status());
  await envoy.restart();
  assert.equal(await status(), 200);
});

test('a hot restart of Envoy loses no request, and only the streams of the new epoch are left', async (t) => {
  const { envoy, sidecar, status } = await startMesh(t, { restartsHot: true });
  const streams = async (): Promise<readonly { opened_at: string; ack: string }[]> => {
    const { body } = await sidecar.admin('/status');
    return (JSON.parse(body) as { envoys: { opened_at: string; ack: string }[] }).envoys;
  };
  const before = await streams();
  const over = new AbortController();
  const answers = (async () => {
    const seen = new Set<number>();
    while (!over.signal.aborted) seen.add(await status());
    return seen;
  })();
  const old = await envoy.hotRestart();
  assert.deepEqual(await old.exit, { code: 0, signal: undefined });
  over.abort();
  assert.deepEqual([...(await answers)], [200]);
  await until('the streams of the old epoch to end', async () => {
    const left = await streams();
    const isOld = ({ opened_at: opened }: { opened_at: string }) =>
      before.some((o) => o.opened_at === opened);
    return (left.length === before.length && !left.some(isOld)) || undefined;
  });
  assert.ok((await streams()).every(({ ack }) => ack === 'acked'));
});

test('a sidecar killed with -9 leaves Envoy its certificates, denies while it is away, and takes over its socket again', async (t) => {
  const { sidecar, envoy, port, status } = await startMesh(t);
  const before = (await probeTls({ port })).serial;
  await sidecar.process().crash();
  assert.equal((await probeTls({ port })).serial, before, 'Envoy keeps the certificate it has');
  assert.equal(await status(), 403, 'without an answer to its Check a request does not pass');

  await sidecar.restart();
  await until('requests to pass again', async () => ((await status()) === 200 ? true : undefined));
  await envoy.waitForStat('cluster.svidecar.upstream_cx_active', (count) => count >= 1);
});

test('a sidecar stopped with SIGTERM exits 0 and removes its socket', async (t) => {
  const { sidecar } = await startMesh(t);
  assert.deepEqual(await sidecar.process().stop(), { code: 0, signal: undefined });
});

test('while the Workload API is away nothing changes; when it comes back under a new authority Envoy follows without a restart', async (t) => {
  const { issuer, sidecar, port, status } = await startMesh(t);
  const before = (await probeTls({ port })).serial;
  await issuer.process().crash();
  await sidecar.process().waitForLine(/workload/i);
  assert.equal(await status(), 200, 'the last good identity stays in force');

  await issuer.restart();
  await until('a certificate of the new authority on the wire', async () => {
    const { serial } = await probeTls({ port });
    return serial !== undefined && serial !== before ? serial : undefined;
  });
  await until('requests to pass', async () => ((await status()) === 200 ? true : undefined));
});
