import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { createTestAuthority } from '../support/ca.ts';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, plainCluster } from '../support/envoy-config.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { allowed, combined, entrypoint, policy, server, trustDomain } from './world.ts';

const hourMs = 3_600_000;

test('a peer whose intermediate nobody has seen passes when Envoy sends its chain, and only then', async (t) => {
  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const ca = await createTestAuthority(trustDomain, times);
  const own = await ca.leaf({ uris: [server], ...times });
  const intermediate = await ca.intermediate(times);
  const peer = await intermediate.leaf({ uris: [allowed], ...times });

  const directory = await tempDirectory(t);
  const files = { certificate: 'svid.pem', private_key: 'svid.key', bundle: 'bundle.pem' };
  await writeFile(join(directory, files.certificate), encodeCertificatesPem([own.certificate]));
  await writeFile(join(directory, files.private_key), encodePrivateKeyPem(own.privateKey), { mode: 0o600 });
  await writeFile(join(directory, files.bundle), encodeCertificatesPem([ca.certificate]));
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: {
        source: 'files',
        files: Object.fromEntries(Object.entries(files).map(([key, name]) => [key, join(directory, name)])),
      },
      ext_authz: { path: entrypoint, peer: { verify_certificate: 'required' } },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });

  const [without, withChain] = [await freePort(), await freePort()];
  const tls = { certificate: 'default', bundle: 'ROOTCA' };
  const details = (set: Readonly<Record<string, boolean>>) => ({
    forward_client_cert_details: 'SANITIZE_SET',
    set_current_client_cert_details: set,
  });
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [
        httpListener({
          name: 'without',
          port: without,
          tls,
          filters: [extAuthz()],
          manager: details({ uri: true }),
        }),
        httpListener({
          name: 'with',
          port: withChain,
          tls,
          filters: [extAuthz()],
          manager: details({ uri: true, chain: true }),
        }),
      ],
      clusters: [],
    }),
  });
  const identity = {
    certificatePem: encodeCertificatesPem([peer.certificate, intermediate.certificate]).toString(),
    privateKeyPem: encodePrivateKeyPem(peer.privateKey).toString(),
  };
  assert.equal((await probeTls({ port: without, identity })).status, 403);
  await sidecar.process().waitForLine(/untrusted_chain/);
  assert.equal((await probeTls({ port: withChain, identity })).status, 200);
});

test('behind a proxy nobody gets another name by a comma in a certificate', async (t) => {
  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const [ca, partner] = await Promise.all([
    createTestAuthority(trustDomain, times),
    createTestAuthority('partner.test', times),
  ]);
  const [own, honest, forger] = await Promise.all([
    ca.leaf({ uris: [server], ...times }),
    ca.leaf({ uris: [allowed], ...times }),
    partner.leaf({ uris: [`spiffe://partner.test/x,URI=${allowed}`], ...times }),
  ]);
  const directory = await tempDirectory(t);
  const at = (name: string): string => join(directory, name);
  await writeFile(at('svid.pem'), encodeCertificatesPem([own.certificate]));
  await writeFile(at('svid.key'), encodePrivateKeyPem(own.privateKey), { mode: 0o600 });
  await writeFile(at('own.pem'), encodeCertificatesPem([ca.certificate]));
  await writeFile(at('partner.pem'), encodeCertificatesPem([partner.certificate]));
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: {
        source: 'files',
        files: {
          certificate: at('svid.pem'),
          private_key: at('svid.key'),
          bundle: at('own.pem'),
          federated_bundles: { 'partner.test': at('partner.pem') },
        },
      },
      ext_authz: { path: entrypoint, peer: { trust_xfcc: true } },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  const [front, back] = [await freePort(), await freePort()];
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [
        httpListener({
          name: 'front',
          port: front,
          cluster: 'back',
          tls: { certificate: 'default', bundle: 'ALL' },
          manager: {
            forward_client_cert_details: 'SANITIZE_SET',
            set_current_client_cert_details: { uri: true, cert: true },
          },
        }),
        httpListener({
          name: 'back',
          port: back,
          filters: [extAuthz()],
          manager: { forward_client_cert_details: 'ALWAYS_FORWARD_ONLY' },
        }),
      ],
      clusters: [plainCluster('back', back)],
    }),
  });
  const show = ({ certificate, privateKey }: typeof honest) => ({
    certificatePem: encodeCertificatesPem([certificate]).toString(),
    privateKeyPem: encodePrivateKeyPem(privateKey).toString(),
  });
  assert.equal((await probeTls({ port: front, identity: show(honest) })).status, 200);
  assert.equal((await probeTls({ port: front, identity: show(forger) })).status, 403);
  await sidecar.process().waitForLine(/"reason_code":"untrusted_certificate"/);
});
