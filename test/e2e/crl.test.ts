import 'reflect-metadata';
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Extension } from '@peculiar/x509';
import { encodeCertificatesPem, encodeCrlPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import { fitnessOf } from '../../src/spiffe/crl.ts';
import type { X509Svid } from '../../src/spiffe/x509-svid.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { envoyPath } from '../support/binaries.ts';
import { createTestAuthority, type TestAuthority, testNow } from '../support/ca.ts';
import { type Envoy, sdsStat, startEnvoy } from '../support/envoy.ts';
import { bootstrapOf, httpListener, plainCluster } from '../support/envoy-config.ts';
import { freePort } from '../support/ports.ts';
import { runProcess, tempDirectory, until } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { type Publication, startPublisher } from './published.ts';
import { allowed, combined, denied, server, trustDomain } from './world.ts';

const hourMs = 3_600_000;

type World = Readonly<{
  root: TestAuthority;
  /** A second authority of the domain. */
  sibling: TestAuthority;
  own: X509Svid;
  good: X509Svid;
  bad: X509Svid;
  sidecar: Sidecar;
  envoy: Envoy;
  publish(changes: Partial<Publication>): Promise<void>;
  /** The HTTP status that a client with this SVID gets; undefined when the handshake is refused. */
  status(client: X509Svid): Promise<number | undefined>;
  /** A current CRL of `authority`. */
  crl(authority: TestAuthority, revoked?: readonly X509Svid[]): Promise<Buffer>;
}>;

/** An Envoy that demands certificates of `acme.test`, fed over SDS from a Workload API that the test speaks for. */
async function startWorld(t: TestContext, sds: object = {}): Promise<World> {
  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const [root, sibling] = await Promise.all([
    createTestAuthority(trustDomain, times),
    createTestAuthority(trustDomain, times),
  ]);
  const svid = async (id: string): Promise<X509Svid> => {
    const { certificate, privateKey } = await root.leaf({ uris: [id], ...times });
    return { ...(await root.svid(id)), chain: [certificate], privateKey };
  };
  const [own, good, bad] = [await svid(server), await svid(allowed), await svid(denied)];
  const base: Publication = { svids: [own], authorities: [root.certificate] };
  const publisher = await startPublisher(t, base);
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: publisher.address } },
      ext_authz: { enabled: false },
      sds,
    },
  });
  const port = await freePort();
  const tls = { certificate: 'default', bundle: 'ROOTCA' };
  const listener = httpListener({ name: 'server', port, tls });
  const envoy = await startEnvoy(t, {
    config: combined(sidecar.socket, { listeners: [listener], clusters: [] }),
  });
  return {
    root,
    sibling,
    own,
    good,
    bad,
    sidecar,
    envoy,
    async publish(changes) {
      const seen = await envoy.stat(sdsStat('ROOTCA', 'update_success'));
      publisher.publish({ ...base, ...changes });
      await envoy.waitForStat(sdsStat('ROOTCA', 'update_success'), (count) => count > seen);
    },
    async status({ chain, privateKey }) {
      const identity = {
        certificatePem: encodeCertificatesPem(chain).toString(),
        privateKeyPem: encodePrivateKeyPem(privateKey).toString(),
      };
      return (await probeTls({ port, identity })).status;
    },
    crl: (authority, revoked = []) =>
      authority.crl(
        revoked.map(({ chain }) => chain[0]),
        { thisUpdate: Date.now() - hourMs, nextUpdate: Date.now() + hourMs },
      ),
  };
}

for (const [mode, sds] of [
  ['the SPIFFE validator', {}],
  ['a plain trusted_ca', { spiffe_validator: false }],
] as const) {
  test(`with ${mode}, a client that is revoked is refused at the handshake once the CRL arrives, others pass`, async (t) => {
    const { root, good, bad, status, publish, crl, envoy } = await startWorld(t, sds);
    assert.deepEqual([await status(good), await status(bad)], [200, 200]);
    await publish({ crls: [await crl(root, [bad])] });
    await until('the revoked client to be refused', async () =>
      (await status(bad)) === undefined ? true : undefined,
    );
    assert.equal(await status(good), 200);
    assert.ok((await envoy.stat('listener.server.ssl.fail_verify_error')) >= 1);
    assert.equal(await envoy.stat(sdsStat('ROOTCA', 'update_rejected')), 0);
    await publish({});
    await until('the client to pass without the CRL', async () =>
      (await status(bad)) === 200 ? true : undefined,
    );
  });
}

test('a CRL for one of two authorities is left out with a warning and nothing breaks; with the second it is sent', async (t) => {
  const { root, sibling, good, bad, status, publish, crl, sidecar } = await startWorld(t);
  const authorities = [root.certificate, sibling.certificate];
  const rootCrl = await crl(root, [bad]);
  await publish({ authorities, crls: [rootCrl] });
  await sidecar.process().waitForLine(/has no CRL.*CRLs are kept from Envoy/);
  assert.deepEqual([await status(good), await status(bad)], [200, 200]);

  await publish({ authorities, crls: [rootCrl, await crl(sibling)] });
  await until('the revoked client to be refused', async () =>
    (await status(bad)) === undefined ? true : undefined,
  );
  assert.equal(await status(good), 200);
});

test('every kind of CRL that is called fit is one that Envoy loads', async (t) => {
  const ca = await createTestAuthority(trustDomain);
  const { certificate } = await ca.leaf();
  const extension = (oid: string, value: string) => new Extension(oid, false, Buffer.from(value, 'hex'));
  const crls = await Promise.all([
    ca.crl([]),
    ca.crl([certificate]),
    ca.crl([certificate], { nextUpdate: null }),
    ca.crl([certificate], { extensions: [extension('2.5.29.20', '020101')] }),
    ca.crl([certificate], { keyIdentifier: false }),
    ca.crl([certificate], { extensions: [extension('1.2.3.4', '0500')] }),
    ca.crl([certificate], { entryExtensions: [extension('1.2.3.4', '0500')] }),
    ca.crl([certificate, (await ca.leaf()).certificate]),
  ]);
  for (const crl of crls) assert.equal(fitnessOf(crl, ca.certificate, testNow).fit, true);
  const type = (name: string): string =>
    `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${name}`;
  const validator = {
    name: 'envoy.tls.cert_validator.spiffe',
    typed_config: {
      '@type': type('SPIFFECertValidatorConfig'),
      trust_domains: crls.map((crl, index) => ({
        name: `domain${index}.test`,
        trust_bundle: {
          inline_string: Buffer.concat([
            encodeCertificatesPem([ca.certificate]),
            encodeCrlPem(crl),
          ]).toString(),
        },
      })),
    },
  };
  const cluster = {
    ...plainCluster('trusting', 1),
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': type('UpstreamTlsContext'),
        common_tls_context: { validation_context: { custom_validator_config: validator } },
      },
    },
  };
  const file = join(await tempDirectory(t), 'envoy.json');
  await writeFile(file, JSON.stringify(bootstrapOf({ listeners: [], clusters: [cluster] }, 0)));
  const args = ['--mode', 'validate', '-c', file];
  const { code, output } = await runProcess(t, { name: 'envoy', command: await envoyPath(), args });
  assert.equal(code, 0, output);
});
