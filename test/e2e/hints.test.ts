import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import type { X509Svid } from '../../src/spiffe/x509-svid.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { createTestAuthority } from '../support/ca.ts';
import { startEnvoy } from '../support/envoy.ts';
import { httpListener } from '../support/envoy-config.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { startPublisher } from './published.ts';
import { combined, trustDomain } from './world.ts';

const hourMs = 3_600_000;

test('SVIDs with hints reach Envoy as hint:NAME, the first of two with one hint, and one as the default', async (t) => {
  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const ca = await createTestAuthority(trustDomain, times);
  const svid = async (path: string, hint: string): Promise<X509Svid> => {
    const id = `spiffe://${trustDomain}/${path}`;
    const { certificate, privateKey } = await ca.leaf({ uris: [id], ...times });
    return { ...(await ca.svid(id, { hint })), chain: [certificate], privateKey };
  };
  const [plain, internal, external, again, late] = await Promise.all([
    svid('plain', ''),
    svid('internal', 'internal'),
    svid('external', 'external'),
    svid('again', 'internal'),
    svid('late', 'late'),
  ]);
  const authorities = [ca.certificate];
  const publisher = await startPublisher(t, { svids: [plain, internal, external, again], authorities });
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: publisher.address } },
      ext_authz: { enabled: false },
      sds: { default_svid_hint: 'external' },
    },
  });
  const names = ['hint:internal', 'default', 'hint:late'];
  const ports = await Promise.all(names.map(() => freePort()));
  const listeners = names.map((certificate, index) =>
    httpListener({ name: `l${index}`, port: ports[index] ?? 0, tls: { certificate, bundle: 'ROOTCA' } }),
  );
  await startEnvoy(t, { config: combined(sidecar.socket, { listeners, clusters: [] }) });
  const identity = {
    certificatePem: encodeCertificatesPem(plain.chain).toString(),
    privateKeyPem: encodePrivateKeyPem(plain.privateKey).toString(),
  };
  const served = async (index: number): Promise<string | undefined> =>
    (await probeTls({ port: ports[index] ?? 0, identity })).uri;

  assert.equal(await served(0), internal.spiffeId);
  assert.equal(await served(1), external.spiffeId);
  assert.equal(await served(2), undefined);

  publisher.publish({ svids: [plain, again, internal, external, late], authorities });
  await until('the first SVID with the hint to be another', async () =>
    (await served(0)) === again.spiffeId ? true : undefined,
  );
  await until('the late hint to be served', async () =>
    (await served(2)) === late.spiffeId ? true : undefined,
  );
  assert.equal(await served(1), external.spiffeId);
});
