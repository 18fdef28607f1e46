import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { sidecarCluster } from '../../src/envoy/cluster.ts';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { devIdentity, entrypoint } from './world.ts';

// More than Envoy's own bound on calls to one cluster, 1024, which the printed bootstraps lift.
const maxConcurrent = 1100;
const requests = 1300;

test('in a burst the sidecar, not Envoy, says what is too much, so that no request meets failure_mode_allow', async (t) => {
  const opa = await startSlowOpa(t);
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: {
        path: entrypoint,
        peer: { require: false },
        limits: { max_concurrent: maxConcurrent },
      },
      policy: { opa: { url: opa.url }, timeout: '30s' },
      decision_log: { console: false },
    },
  });
  const port = await freePort();
  const authz = extAuthz({
    failure_mode_allow: true,
    grpc_service: { envoy_grpc: { cluster_name: 'svidecar' }, timeout: '60s' },
  });
  const envoy = await startEnvoy(t, {
    config: {
      listeners: [httpListener({ name: 'server', port, filters: [authz] })],
      clusters: [sidecarCluster('svidecar', { kind: 'unix', path: sidecar.socket })],
    },
  });

  const answers = Array.from({ length: requests }, () => http({ port, path: '/', timeoutMs: 60_000 }));
  await until(
    'every Check to be asked or refused',
    async () => {
      const refused = await envoy.stat('http.server.ext_authz.denied');
      return refused + opa.waiting() >= requests ? true : undefined;
    },
    { timeoutMs: 30_000 },
  );
  assert.equal(opa.waiting(), maxConcurrent);
  opa.answer();

  const statuses = (await Promise.all(answers)).map(({ status }) => status);
  assert.equal(statuses.filter((status) => status === 503).length, requests - maxConcurrent);
  assert.equal(statuses.filter((status) => status === 403).length, maxConcurrent);
  assert.equal(await envoy.stat('cluster.svidecar.upstream_rq_pending_overflow'), 0);
  assert.equal(await envoy.stat('http.server.ext_authz.failure_mode_allowed'), 0);
});

/** A server in the place of OPA that denies everything, all at once when told. */
async function startSlowOpa(t: TestContext) {
  const held: (() => void)[] = [];
  const listening = createServer((request, response) => {
    request.resume();
    held.push(() => response.end('{"result":false}'));
  });
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    listening.closeAllConnections();
    listening.close();
  });
  return {
    url: `http://127.0.0.1:${(listening.address() as AddressInfo).port}`,
    waiting: () => held.length,
    answer: () => {
      for (const answer of held) answer();
    },
  };
}
