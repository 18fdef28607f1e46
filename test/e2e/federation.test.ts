import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { sleep } from '../../src/runtime/abort.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import { runTraffic, type TrafficReport } from '../../src/stack/traffic.ts';
import { createTestAuthority } from '../support/ca.ts';
import { type Envoy, sdsStat, startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, mtlsCluster } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { startTrustDomain, type TestTrustDomain } from '../support/trust-domain.ts';
import { combined } from './world.ts';

const policy = 'package federation\n\ndefault allow := false\n\nallow if input.spiffe.source.verified\n';

type Files = Readonly<{ directory: string; write(name: string, content: string | Buffer): Promise<string> }>;

async function fileStore(t: TestContext): Promise<Files> {
  const directory = await tempDirectory(t);
  return {
    directory,
    async write(name, content) {
      const path = join(directory, name);
      await writeFile(path, content, { mode: 0o600 });
      return path;
    },
  };
}

/** A certificate for localhost of a private CA, as files. */
async function webCertificate(files: Files) {
  const times = { notBefore: Date.now() - 60_000, notAfter: Date.now() + 3_600_000 };
  const ca = await createTestAuthority('web.ca', { ...times, uris: [] });
  const leaf = await ca.leaf({ ...times, uris: [], dnsNames: ['localhost'] });
  return {
    ca: await files.write('ca.pem', encodeCertificatesPem([ca.certificate])),
    certificate: await files.write('tls.pem', encodeCertificatesPem([leaf.certificate])),
    private_key: await files.write('tls.key', encodePrivateKeyPem(leaf.privateKey)),
  };
}

/**
 * An Envoy that serves every domain held on `port`, one domain alone on the port of `only`, and calls each target under
 * an identity.
 */
function startDomainEnvoy(
  t: TestContext,
  sidecar: Sidecar,
  name: string,
  port: number,
  calls: readonly Readonly<{ entry: number; to: number; as: string; peer: string }>[],
  only?: Readonly<{ port: number; trustDomain: string }>,
): Promise<Envoy> {
  const serve = httpListener({
    name: 'server',
    port,
    tls: { certificate: 'default', bundle: 'ALL' },
    filters: [extAuthz()],
  });
  const config = combined(sidecar.socket, {
    listeners: [
      serve,
      ...(only === undefined
        ? []
        : [
            httpListener({
              name: 'only',
              port: only.port,
              tls: { certificate: 'default', bundle: `spiffe://${only.trustDomain}` },
            }),
          ]),
      ...calls.map(({ entry }) =>
        httpListener({ name: `out_${entry}`, port: entry, cluster: `out_${entry}` }),
      ),
    ],
    clusters: calls.map(({ entry, to, as, peer }) =>
      mtlsCluster(`out_${entry}`, to, { certificate: as, bundle: 'ALL', peer }),
    ),
  });
  return startEnvoy(t, { name: `envoy of ${name}`, config });
}

type TrustBundles = Readonly<
  Record<string, Readonly<{ x509_authorities: readonly string[]; source: string; last_error?: string }>>
>;

/** What a sidecar says it holds of a trust domain: fingerprints, and where they are from. */
async function heldOf(sidecar: Sidecar, trustDomain: string) {
  const { body } = await sidecar.admin('/spiffe/trust-bundle');
  const bundle = (JSON.parse(body) as { trust_domains: TrustBundles }).trust_domains[trustDomain];
  const authorities = bundle?.x509_authorities.map((pem) =>
    new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase(),
  );
  return { source: bundle?.source, authorities };
}

async function untilHeld(sidecar: Sidecar, domain: TestTrustDomain): Promise<void> {
  await until(`the bundle of ${domain.name}`, async () => {
    const { source, authorities } = await heldOf(sidecar, domain.name);
    return source === 'endpoint' && authorities?.join() === domain.authorities().join() ? true : undefined;
  });
}

test('three trust domains federate over both profiles: real Envoys call across, a rotated authority reaches the partner without a failed request, who is not allowed is refused, and a partner that is removed is trusted no more', async (t) => {
  const files = await fileStore(t);
  const [a, b, c] = [
    await startTrustDomain(t, 'a.test', ['spiffe://a.test/web']),
    await startTrustDomain(t, 'b.test', ['spiffe://b.test/agent', 'spiffe://b.test/batch']),
    await startTrustDomain(t, 'c.test', ['spiffe://c.test/agent']),
  ];
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy } });
  const web = await webCertificate(files);
  const [portA, portB, portC, portAweb] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const overSpiffe = async (domain: TestTrustDomain, id: string, port: number, allowed: string) => ({
    name: domain.name,
    bundle_endpoint: `https://127.0.0.1:${port}`,
    profile: 'https_spiffe',
    endpoint_spiffe_id: id,
    bootstrap_bundle: await files.write(`${domain.name}.json`, domain.bundle()),
    allowed_identities: [allowed],
  });
  const overWeb = (domain: TestTrustDomain, port: number, allowed: string) => ({
    name: domain.name,
    bundle_endpoint: `https://localhost:${port}`,
    profile: 'https_web',
    ca_file: web.ca,
    allowed_identities: [allowed],
  });
  const sidecar = (domain: TestTrustDomain, name: string, federation: object): Promise<Sidecar> =>
    startSidecar(t, {
      name,
      config: {
        identity: { workload_api: { address: domain.workloadApi } },
        trust_domain: domain.name,
        policy: { opa: { url: opa.url }, timeout: '2s' },
        ext_authz: { path: 'federation/allow', peer: { verify_certificate: 'required' } },
        decision_log: { console: false },
        federation,
      },
    });
  const { certificate, private_key } = web;
  const serveWeb = { profile: 'https_web', refresh_hint: '1s', certificate, private_key };

  // A domain publishes by each profile at an endpoint of its own; the first of A's sidecars does nothing else.
  await sidecar(a, 'web endpoint of a', { serve: { listen: `127.0.0.1:${portAweb}`, ...serveWeb } });
  const sidecarC = await sidecar(c, 'sidecar of c', {
    serve: { listen: `127.0.0.1:${portC}`, ...serveWeb },
    trust_domains: [overWeb(a, portAweb, 'spiffe://a.test/*')],
  });
  const partnerC = overWeb(c, portC, 'spiffe://c.test/*');
  const sidecarA = await sidecar(a, 'sidecar of a', {
    persist_dir: join(files.directory, 'bundles'),
    serve: { listen: `127.0.0.1:${portA}`, refresh_hint: '1s' },
    trust_domains: [await overSpiffe(b, 'spiffe://b.test/agent', portB, 'spiffe://b.test/agent'), partnerC],
  });
  const sidecarB = await sidecar(b, 'sidecar of b', {
    serve: { listen: `127.0.0.1:${portB}`, refresh_hint: '1s' },
    trust_domains: [await overSpiffe(a, 'spiffe://a.test/web', portA, 'spiffe://a.test/*')],
  });
  await untilHeld(sidecarA, b);
  await untilHeld(sidecarA, c);
  await untilHeld(sidecarB, a);
  await untilHeld(sidecarC, a);

  const [toA, toAonly, toB, toC] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const [aToB, aToC, bToA, bToAonly, batchToA, cToA] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const [envoyA, envoyB] = await Promise.all([
    startDomainEnvoy(
      t,
      sidecarA,
      'a',
      toA,
      [
        { entry: aToB, to: toB, as: 'spiffe://a.test/web', peer: 'spiffe://b.test/agent' },
        { entry: aToC, to: toC, as: 'spiffe://a.test/web', peer: 'spiffe://c.test/agent' },
      ],
      { port: toAonly, trustDomain: 'b.test' },
    ),
    startDomainEnvoy(t, sidecarB, 'b', toB, [
      { entry: bToA, to: toA, as: 'spiffe://b.test/agent', peer: 'spiffe://a.test/web' },
      { entry: bToAonly, to: toAonly, as: 'spiffe://b.test/agent', peer: 'spiffe://a.test/web' },
      { entry: batchToA, to: toA, as: 'spiffe://b.test/batch', peer: 'spiffe://a.test/web' },
    ]),
    startDomainEnvoy(t, sidecarC, 'c', toC, [
      { entry: cToA, to: toA, as: 'spiffe://c.test/agent', peer: 'spiffe://a.test/web' },
    ]),
  ]);

  await t.test('every domain calls every partner', async () => {
    for (const entry of [aToB, bToA, bToAonly, aToC, cToA]) {
      assert.equal((await http({ port: entry, path: '/' })).status, 200, String(entry));
    }
  });

  await t.test('a partner identity outside of allowed_identities is refused by the Check', async () => {
    assert.equal((await http({ port: batchToA, path: '/' })).status, 403);
    const refused = await sidecarA.metric(
      'svidecar_checks_total{outcome="deny",reason="identity_not_allowed"}',
    );
    assert.equal(refused, 1);
  });

  await t.test('a rotated authority in B reaches the Envoy of A with no failed request', async () => {
    const stop = new AbortController();
    const reports = [bToA, aToB].map(
      (port): Promise<TrafficReport> =>
        runTraffic(
          {
            request: { port, path: '/' },
            loops: 2,
            pauseMs: 10,
            requestsPerConnection: 10,
            maxRequests: 20_000,
            sleep,
          },
          stop.signal,
        ),
    );
    try {
      const updates = await envoyA.stat(sdsStat('ALL', 'update_success'));
      await b.prepareAuthority();
      await untilHeld(sidecarA, b);
      await envoyA.waitForStat(sdsStat('ALL', 'update_success'), (count) => count > updates);
      const serial = await b.activateAuthority();
      await until('the new certificate in the Envoy of B', async () => {
        const certificates = await envoyB.certificates();
        return (
          certificates.some(({ serial_number: shown }) => shown.replace(/^0+/, '') === serial) || undefined
        );
      });
      const again = await envoyA.stat(sdsStat('ALL', 'update_success'));
      b.retireAuthorities();
      await untilHeld(sidecarA, b);
      await envoyA.waitForStat(sdsStat('ALL', 'update_success'), (count) => count > again);
      const before = await envoyA.stat('listener.server.ssl.handshake');
      await envoyA.waitForStat('listener.server.ssl.handshake', (count) => count > before + 2);
    } finally {
      stop.abort();
    }
    for (const { sent, failures } of await Promise.all(reports)) {
      assert.deepEqual(failures, []);
      assert.ok(sent > 100, `only ${sent} requests were sent`);
    }
    assert.equal(await envoyA.stat(sdsStat('ALL', 'update_rejected')), 0);
    const kept = await readFile(join(files.directory, 'bundles/b.test.json'), 'utf8');
    assert.deepEqual(JSON.parse(kept), JSON.parse(b.bundle()), 'the newest bundle is on disk');
  });

  await t.test('an entry that is removed from the config ends trust in the running Envoy', async () => {
    const config = JSON.parse(await readFile(sidecarA.configFile, 'utf8')) as {
      federation: { trust_domains: readonly object[] };
    };
    const changed = { ...config, federation: { ...config.federation, trust_domains: [partnerC] } };
    await writeFile(`${sidecarA.configFile}.new`, JSON.stringify(changed));
    await rename(`${sidecarA.configFile}.new`, sidecarA.configFile);
    await until('the partner to be gone', async () =>
      (await heldOf(sidecarA, 'b.test')).authorities === undefined ? true : undefined,
    );
    const failed = await envoyA.stat('listener.server.ssl.fail_verify_error');
    assert.equal(await envoyA.stat('listener.only.ssl.fail_verify_error'), 0);
    // A connection lasts 20 requests, so new handshakes come soon.
    for (const [what, port] of [
      ['the Envoy of B to be refused by ALL', bToA],
      ['the Envoy of B to be refused by spiffe://b.test', bToAonly],
      ['the Envoy of B to be called no more', aToB],
    ] as const) {
      await until(what, async () => ((await http({ port, path: '/' })).status === 503 ? true : undefined));
    }
    await envoyA.waitForStat('listener.server.ssl.fail_verify_error', (count) => count > failed);
    await envoyA.waitForStat('listener.only.ssl.fail_verify_error', (count) => count > 0);
    assert.equal((await http({ port: cToA, path: '/' })).status, 200, 'the other partner is not touched');
  });
});
