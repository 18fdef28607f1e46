import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { type Envoy, startEnvoy } from '../support/envoy.ts';
import { httpListener, mtlsCluster } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { fetchSvid } from './svids.ts';
import { allowed, clientSide, combined, denied, devIdentity, server } from './world.ts';

type Pair = Readonly<{ sidecar: Sidecar; workloadApi: string; serverEnvoy: Envoy; port: number }>;

/** A sidecar and a server Envoy that answers 200 to every client of its trust domain. */
async function startServer(t: TestContext): Promise<Pair> {
  const port = await freePort();
  const workloadApi = `unix://${join(await tempDirectory(t), 'workload.sock')}`;
  const identity = devIdentity({ serve_workload_api: workloadApi });
  const sidecar = await startSidecar(t, { config: { identity } });
  const tls = { certificate: 'default', bundle: 'ROOTCA' };
  const config = combined(sidecar.socket, {
    listeners: [httpListener({ name: 'server', port, tls })],
    clusters: [],
  });
  return { sidecar, workloadApi, serverEnvoy: await startEnvoy(t, { name: 'server envoy', config }), port };
}

test('two Envoys with certificates and trust from SDS talk over mutual TLS 1.3', async (t) => {
  const { sidecar, serverEnvoy, port } = await startServer(t);
  const entry = await freePort();
  const config = combined(sidecar.socket, clientSide('client', allowed, entry, port));
  const client = await startEnvoy(t, { name: 'client envoy', config });

  const answer = await http({ port: entry, path: '/' });
  assert.equal(answer.status, 200);
  assert.equal(answer.body, 'hello');
  assert.equal(await serverEnvoy.waitForStat('listener.server.ssl.handshake', (count) => count >= 1), 1);
  assert.equal(await serverEnvoy.stat('listener.server.ssl.versions.TLSv1.3'), 1);
  assert.equal(await client.stat('cluster.client_to_server.ssl.versions.TLSv1.3'), 1);
});

test('a client Envoy that pins another SPIFFE ID refuses the server', async (t) => {
  const { sidecar, port } = await startServer(t);
  const entry = await freePort();
  const config = combined(sidecar.socket, {
    listeners: [httpListener({ name: 'client', port: entry, cluster: 'pinned' })],
    clusters: [mtlsCluster('pinned', port, { certificate: allowed, bundle: 'ROOTCA', peer: denied })],
  });
  const client = await startEnvoy(t, { name: 'client envoy', config });

  assert.equal((await http({ port: entry, path: '/' })).status, 503);
  assert.ok((await client.stat('cluster.pinned.ssl.fail_verify_san')) >= 1);
});

test('a client without a certificate fails the handshake, and the same client with its SVID gets through', async (t) => {
  const { workloadApi, serverEnvoy, port } = await startServer(t);
  const identity = await fetchSvid(t, workloadApi, allowed);
  assert.equal((await probeTls({ port, identity })).status, 200);
  const probe = await probeTls({ port });
  assert.equal(probe.uri, server);
  assert.equal(probe.status, undefined);
  assert.match(probe.refusal ?? '', /certificate required/);
  assert.ok((await serverEnvoy.stat('listener.server.ssl.fail_verify_no_cert')) >= 1);
});

test('a client of a trust domain that is not held fails the handshake, even under the same SPIFFE ID path', async (t) => {
  const { serverEnvoy, port } = await startServer(t);
  const stranger = await startSidecar(t, {
    name: 'stranger',
    config: {
      identity: {
        source: 'dev',
        dev: { trust_domain: 'other.test', spiffe_ids: ['spiffe://other.test/allowed'] },
      },
    },
  });
  const entry = await freePort();
  const config = combined(stranger.socket, {
    listeners: [httpListener({ name: 'client', port: entry, cluster: 'trusting' })],
    clusters: [mtlsCluster('trusting', port, { certificate: 'default', bundle: undefined })],
  });
  await startEnvoy(t, { name: 'stranger envoy', config });

  assert.equal((await http({ port: entry, path: '/' })).status, 503);
  assert.ok((await serverEnvoy.stat('listener.server.ssl.fail_verify_error')) >= 1);
  assert.equal(await serverEnvoy.stat('http.server.downstream_rq_total'), 0);
});

test('a client of the same trust domain name under another authority fails the handshake', async (t) => {
  const { serverEnvoy, port } = await startServer(t);
  const impostor = await startSidecar(t, { name: 'impostor', config: { identity: devIdentity() } });
  const entry = await freePort();
  const config = combined(impostor.socket, {
    listeners: [httpListener({ name: 'client', port: entry, cluster: 'trusting' })],
    clusters: [mtlsCluster('trusting', port, { certificate: allowed, bundle: undefined })],
  });
  await startEnvoy(t, { name: 'impostor envoy', config });

  assert.equal((await http({ port: entry, path: '/' })).status, 503);
  assert.ok((await serverEnvoy.stat('listener.server.ssl.fail_verify_error')) >= 1);
});
