/** Envoys of two peers, one that the policies here allow and one that they deny, in front of an upstream. */
import type { TestContext } from 'node:test';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, plainCluster } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { freePort } from '../support/ports.ts';
import type { Sidecar } from '../support/sidecar.ts';
import { allowed, clientSide, combined, denied, server } from './world.ts';

/** Gives the statuses that requests of `allowed` and `denied` come to, such as `200 403`. */
export async function startTwoPeers(t: TestContext, sidecar: Sidecar): Promise<() => Promise<string>> {
  const upstream = await startEchoUpstream(t);
  const [allowedPort, deniedPort, port] = [await freePort(), await freePort(), await freePort()];
  const tls = { certificate: server, bundle: 'ROOTCA' };
  await startEnvoy(t, {
    config: combined(
      sidecar.socket,
      clientSide('allowed', allowed, allowedPort, port),
      clientSide('denied', denied, deniedPort, port),
      {
        listeners: [httpListener({ name: 'server', port, cluster: 'upstream', tls, filters: [extAuthz()] })],
        clusters: [plainCluster('upstream', upstream.port)],
      },
    ),
  });
  return async () => {
    const answers = [
      await http({ port: allowedPort, path: '/' }),
      await http({ port: deniedPort, path: '/' }),
    ];
    return answers.map(({ status }) => status).join(' ');
  };
}
