import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type Envoy, startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, type Json } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, devIdentity, entrypoint, policy, server } from './world.ts';

type Mesh = Readonly<{ sidecar: Sidecar; envoy: Envoy; entry: number; status: () => Promise<number> }>;

/** An allowed client whose requests are decided by the OPA at `url`. */
async function startMesh(t: TestContext, url: string, authz: Json = {}): Promise<Mesh> {
  const [entry, port] = [await freePort(), await freePort()];
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint, ...authz },
      policy: { opa: { url }, timeout: '300ms' },
    },
  });
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const config = combined(sidecar.socket, clientSide('client', allowed, entry, port), {
    listeners: [httpListener({ name: 'server', port, tls, filters: [extAuthz()] })],
    clusters: [],
  });
  const envoy = await startEnvoy(t, { config });
  return { sidecar, envoy, entry, status: async () => (await http({ port: entry, path: '/' })).status };
}

test('while OPA is down every Check is denied, SDS goes on, and when OPA is back requests pass again', async (t) => {
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const { sidecar, envoy, status } = await startMesh(t, opa.url);
  assert.equal(await status(), 200);

  await opa.process.crash();
  assert.equal(await status(), 403);
  await sidecar.process().waitForLine(/engine_unavailable/);
  assert.equal((await sidecar.admin('/live')).status, 200);
  // A new Envoy still gets its certificate.
  await envoy.process().crash();
  await envoy.restart();
  assert.equal(await status(), 403);

  await opa.restart();
  await until('requests to pass again', async () => ((await status()) === 200 ? true : undefined));
});

test('an OPA that never answers costs a Check its timeout and no more, and the request is denied', async (t) => {
  const url = await serve(t, () => {});
  const { sidecar, status } = await startMesh(t, url);
  const startedAt = performance.now();
  assert.equal(await status(), 403);
  const tookMs = performance.now() - startedAt;
  assert.ok(tookMs >= 290 && tookMs < 2000, `took ${tookMs} ms`);
  await sidecar.process().waitForLine(/engine_timeout/);
});

const rubbish: Readonly<Record<string, string>> = {
  'text that is no HTTP': 'hello\r\n\r\n',
  'a body that is no JSON': 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{',
  'a server error': 'HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}',
  'a result that is no decision': 'HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{"result":"maybe"}',
  'no result': 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}',
  'an answer cut short': 'HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{"result":true}',
};

test('an OPA that answers rubbish denies', async (t) => {
  let answer = '';
  const url = await serve(t, (socket) => socket.once('data', () => socket.end(answer)));
  const { sidecar, status } = await startMesh(t, url);
  for (const [name, text] of Object.entries(rubbish)) {
    answer = text;
    const mark = sidecar.process().lineCount();
    assert.equal(await status(), 403, name);
    await sidecar.process().waitForLine(/engine_\w+|malformed_decision|undefined_decision/, { since: mark });
  }
  assert.equal((await sidecar.admin('/live')).status, 200);
});

for (const [onFailure, stat, other] of [
  ['deny', 'denied', 'error'],
  ['error', 'error', 'denied'],
] as const) {
  test(`with on_failure: ${onFailure} a real Envoy counts an engine failure under ${stat}, and nothing passes`, async (t) => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const { status, envoy } = await startMesh(t, url, { on_failure: onFailure });
    assert.equal(await status(), 403);
    assert.equal(await envoy.stat(`http.server.ext_authz.${stat}`), 1);
    assert.equal(await envoy.stat(`http.server.ext_authz.${other}`), 0);
  });
}

/** A TCP server in the place of OPA. */
async function serve(t: TestContext, answer: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const listening: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    answer(socket);
  });
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listening.close();
  });
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`;
}
