import assert from 'node:assert/strict';
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { createTestAuthority, type Issued } from '../support/ca.ts';
import { startEnvoy } from '../support/envoy.ts';
import { httpListener } from '../support/envoy-config.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { combined, server, trustDomain } from './world.ts';

const hourMs = 3_600_000;
const names = ['svid.pem', 'svid.key', 'bundle.pem'];

test('an identity in files, swapped as Kubernetes does it, reaches Envoy; a pair that does not match never does', async (t) => {
  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const ca = await createTestAuthority(trustDomain, times);
  const issue = (): Promise<Issued> => ca.leaf({ uris: [server], ...times });
  const [first, second, third] = [await issue(), await issue(), await issue()];
  const directory = await tempDirectory(t);
  const publish = async (version: string, certificate: Issued, key: Issued): Promise<void> => {
    const data = join(directory, version);
    await mkdir(data);
    await writeFile(join(data, 'svid.pem'), encodeCertificatesPem([certificate.certificate]));
    await writeFile(join(data, 'svid.key'), encodePrivateKeyPem(key.privateKey), { mode: 0o600 });
    await writeFile(join(data, 'bundle.pem'), encodeCertificatesPem([ca.certificate]));
    await symlink(version, join(directory, '..data_tmp'));
    await rename(join(directory, '..data_tmp'), join(directory, '..data'));
  };
  await publish('..1', first, first);
  for (const name of names) await symlink(join('..data', name), join(directory, name));

  // The file names another source: TLS_MODE decides.
  const [certificate, privateKey, bundle] = names.map((name) => join(directory, name));
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', files: { certificate, private_key: privateKey, bundle } },
      ext_authz: { enabled: false },
    },
    env: { TLS_MODE: 'file' },
  });
  const port = await freePort();
  const tls = { certificate: 'default', bundle: 'ROOTCA' };
  await startEnvoy(t, {
    config: combined(sidecar.socket, { listeners: [httpListener({ name: 'l', port, tls })], clusters: [] }),
  });
  const serial = async (): Promise<string> => ((await probeTls({ port })).serial ?? '').toLowerCase();
  const served = ({ certificate: leaf }: Issued) =>
    until('the certificate to be served', async () => ((await serial()) === leaf.serial ? true : undefined));
  const peer = {
    certificatePem: encodeCertificatesPem([first.certificate]).toString(),
    privateKeyPem: encodePrivateKeyPem(first.privateKey).toString(),
  };
  await served(first);
  assert.equal((await probeTls({ port, identity: peer })).status, 200);

  await publish('..2', second, second);
  await served(second);

  await publish('..3', third, first);
  await sidecar.process().waitForLine(/does not match its certificate.*last good identity stays/);
  assert.equal(await serial(), second.certificate.serial);
  await sidecar.waitForReady();

  await publish('..4', third, third);
  await served(third);
  assert.equal(
    sidecar
      .process()
      .recentLines()
      .filter((line) => line.includes('PRIVATE KEY')).length,
    0,
  );
});

test('an unknown TLS_MODE is a mistake of configuration', async (t) => {
  const sidecar = await startSidecar(t, { config: {}, env: { TLS_MODE: 'none' }, waitForReady: false });
  const exit = await until('the sidecar to end', () => Promise.resolve(sidecar.process().exited()));
  assert.equal(exit.code, 64);
  assert.match(sidecar.process().recentLines().join(), /TLS_MODE must be spiffe or file, not "none"/);
});
