import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { type Envoy, sdsStat, startEnvoy } from '../support/envoy.ts';
import { httpListener, type SdsProtocol } from '../support/envoy-config.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { allowed, combined, devIdentity, server, trustDomain } from './world.ts';

/** The end-to-end cases of SDS, which hold for both of its protocols. */
export function testSds(protocol: SdsProtocol): void {
  test('a real Envoy gets its SVID and bundle, and shows the SVID on the wire', async (t) => {
    const port = await freePort();
    const sidecar = await startSidecar(t, { config: { identity: devIdentity() } });
    const tls = { certificate: 'default', bundle: 'ROOTCA', protocol };
    const config = combined(sidecar.socket, {
      listeners: [httpListener({ name: 'a', port, tls })],
      clusters: [],
    });
    const envoy = await startEnvoy(t, { config });

    await accepted(envoy, 'default', 'ROOTCA');
    const probe = await probeTls({ port });
    assert.equal(probe.uri, server);
    const [certificate] = await envoy.certificates();
    assert.equal(certificate?.serial_number, probe.serial?.toLowerCase());
  });

  test('an Envoy may name an SVID by its SPIFFE ID, and a bundle by its trust domain or ALL', async (t) => {
    const [one, two] = [await freePort(), await freePort()];
    const sidecar = await startSidecar(t, { config: { identity: devIdentity() } });
    const bundle = `spiffe://${trustDomain}`;
    const config = combined(sidecar.socket, {
      listeners: [
        httpListener({ name: 'one', port: one, tls: { certificate: allowed, bundle, protocol } }),
        httpListener({ name: 'two', port: two, tls: { certificate: server, bundle: 'ALL', protocol } }),
      ],
      clusters: [],
    });
    const envoy = await startEnvoy(t, { config });

    await accepted(envoy, allowed, server, bundle, 'ALL');
    assert.equal((await probeTls({ port: one })).uri, allowed);
    assert.equal((await probeTls({ port: two })).uri, server);
  });

  test('a rotated SVID is pushed to Envoy, and an unchanged bundle is not', async (t) => {
    const port = await freePort();
    const sidecar = await startSidecar(t, { config: { identity: devIdentity({ svid_ttl: '6s' }) } });
    const tls = { certificate: 'default', bundle: 'ROOTCA', protocol };
    const config = combined(sidecar.socket, {
      listeners: [httpListener({ name: 'a', port, tls })],
      clusters: [],
    });
    const envoy = await startEnvoy(t, { config });

    const first = (await probeTls({ port })).serial;
    await envoy.waitForStat('sds.default.update_success', (count) => count >= 3);
    await until('another serial on the wire', async () => {
      const { serial } = await probeTls({ port });
      return serial !== undefined && serial !== first ? serial : undefined;
    });
    assert.equal(await envoy.stat('sds.ROOTCA.update_success'), 1);
    assert.equal(await envoy.stat('sds.default.update_rejected'), 0);
  });

  test('a name that nobody knows costs its own listener its certificate, and no other', async (t) => {
    const [good, bad] = [await freePort(), await freePort()];
    const sidecar = await startSidecar(t, { config: { identity: devIdentity() } });
    const config = combined(sidecar.socket, {
      listeners: [
        httpListener({
          name: 'good',
          port: good,
          tls: { certificate: 'default', bundle: 'ROOTCA', protocol },
        }),
        httpListener({
          name: 'bad',
          port: bad,
          tls: { certificate: `spiffe://${trustDomain}/nobody`, bundle: 'ROOTCA', protocol },
        }),
      ],
      clusters: [],
    });
    const envoy = await startEnvoy(t, { config, waitForReady: false });

    await until('the good listener to show its SVID', async () =>
      (await probeTls({ port: good })).uri === server ? true : undefined,
    );
    assert.equal((await probeTls({ port: bad })).serial, undefined);
    assert.equal(envoy.process().exited(), undefined);
  });
}

async function accepted(envoy: Envoy, ...names: readonly string[]): Promise<void> {
  for (const name of names) {
    await envoy.waitForStat(sdsStat(name, 'update_success'), (count) => count >= 1);
    assert.equal(await envoy.stat(sdsStat(name, 'update_rejected')), 0);
  }
}
