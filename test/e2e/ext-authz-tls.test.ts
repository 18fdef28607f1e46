import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from 'node:tls';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import { parseYaml } from '../../src/config/yaml.ts';
import { startEnvoy } from '../support/envoy.ts';
import type { EnvoyConfig } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';
import { reflect } from '../support/reflection.ts';
import { runCommand, startSidecar } from '../support/sidecar.ts';
import { fetchSvid, type PemIdentity } from './svids.ts';
import { allowed, clientSide, combined, denied, devIdentity, entrypoint, policy, server } from './world.ts';

const rotation = 'svidecar_svid_rotations_total{spiffe_id="spiffe://acme.test/server"}';

/** A sidecar whose ext_authz is on tcp with mTLS, for the default SVID of its own Envoy only. */
async function startWithTls(t: TestContext, svidTtl: string) {
  const directory = await tempDirectory(t);
  const workloadApi = `unix://${join(directory, 'workload.sock')}`;
  const file = join(directory, 'bundle.tar.gz');
  await buildWasmBundle(t, { files: { 'policy.rego': policy }, entrypoints: [entrypoint], into: file });
  const port = await freePort();
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ serve_workload_api: workloadApi, svid_ttl: svidTtl }),
      ext_authz: {
        path: entrypoint,
        listen: `tcp://0.0.0.0:${port}`,
        tls: { client_spiffe_ids: [server] },
        limits: { reflection: true },
      },
      policy: { engine: 'wasm', bundle: { file }, timeout: '2s' },
    },
  });
  return { sidecar, port, workloadApi };
}

test('a real Envoy with the bootstrap we print asks over mTLS, and no Check is lost while SVIDs rotate', async (t) => {
  const { sidecar, port: authzPort } = await startWithTls(t, '4s');
  const upstream = await startEchoUpstream(t);
  const [port, allowedPort, deniedPort] = [await freePort(), await freePort(), await freePort()];
  const printed = await runCommand(
    t,
    'bootstrap',
    `--config=${sidecar.configFile}`,
    `--listener=127.0.0.1:${port}`,
    `--upstream=127.0.0.1:${upstream.port}`,
  );
  assert.equal(printed.code, 0, printed.output);
  const { static_resources: resources } = parseYaml(printed.output) as { static_resources: EnvoyConfig };
  const envoy = await startEnvoy(t, { name: 'server envoy', config: resources });
  await startEnvoy(t, {
    name: 'client envoy',
    config: combined(
      sidecar.socket,
      clientSide('allowed', allowed, allowedPort, port),
      clientSide('denied', denied, deniedPort, port),
    ),
  });
  const before = await shownBy(authzPort);
  const rotations = await sidecar.metric(rotation);
  let checks = 0;
  await until('three rotations', async () => {
    assert.equal((await http({ port: allowedPort, path: '/' })).status, 200);
    assert.equal((await http({ port: deniedPort, path: '/' })).status, 403);
    checks += 2;
    return (await sidecar.metric(rotation)) >= rotations + 3 ? true : undefined;
  });
  assert.equal(await envoy.stat('http.ingress.ext_authz.svidecar.error'), 0);
  assert.equal(await sidecar.metric('svidecar_checks_total{outcome="allow",reason="none"}'), checks / 2);
  assert.ok((await envoy.stat('cluster.svidecar_ext_authz.ssl.versions.TLSv1.3')) >= 1);
  assert.notEqual(await shownBy(authzPort), before, 'new connections are shown the new certificate');
});

test('only the SPIFFE IDs listed get in: no other one, and nobody without a certificate', async (t) => {
  const { port, workloadApi } = await startWithTls(t, '1h');
  assert.equal(await letIn(port, await fetchSvid(t, workloadApi, server)), true);
  assert.equal(await letIn(port, await fetchSvid(t, workloadApi, denied)), false);
  assert.equal(await letIn(port, undefined), false);
  assert.equal(await letIn(port, await fetchSvid(t, workloadApi, server), 'http/1.1'), false);
});

test('reflection tells of the services of its listener, and is behind the same mTLS', async (t) => {
  const { sidecar, port, workloadApi } = await startWithTls(t, '1h');
  const names = async (target: string, how: ChannelCredentials): Promise<readonly string[]> =>
    [...(await reflect(target, how)).services].sort();
  const secrets = 'envoy.service.secret.v3.SecretDiscoveryService';
  const [authorization, health] = ['envoy.service.auth.v3.Authorization', 'grpc.health.v1.Health'];
  assert.deepEqual(await names(`unix:${sidecar.socket}`, credentials.createInsecure()), [secrets, health]);
  const target = `127.0.0.1:${port}`;
  assert.deepEqual(await names(target, tlsOf(await fetchSvid(t, workloadApi, server))), [
    authorization,
    health,
  ]);
  await assert.rejects(names(target, tlsOf(await fetchSvid(t, workloadApi, denied))));
});

/** For a client that shows its SVID and does not look at the server's. */
function tlsOf({ certificatePem, privateKeyPem }: PemIdentity): ChannelCredentials {
  return credentials.createSsl(null, Buffer.from(privateKeyPem), Buffer.from(certificatePem), {
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
}

/** Whether the server speaks HTTP/2 to that client: it sends its SETTINGS first. */
function letIn(port: number, identity: PemIdentity | undefined, protocol = 'h2'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({
      port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      ALPNProtocols: [protocol],
      ...(identity === undefined ? {} : { cert: identity.certificatePem, key: identity.privateKeyPem }),
    });
    const settle = (answer: boolean) => (): void => {
      resolve(answer);
      socket.destroy();
    };
    socket.on('error', settle(false));
    socket.on('close', settle(false));
    socket.on('data', settle(true));
  });
}

/** The serial number of the certificate that the server shows. */
function shownBy(port: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()?.serialNumber);
      socket.destroy();
    });
  });
}
