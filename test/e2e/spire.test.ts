import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from 'node:tls';
import { sleep } from '../../src/runtime/abort.ts';
import { createX509Authority } from '../../src/spiffe/authority.ts';
import { encodeCertificatesPem } from '../../src/spiffe/certificate.ts';
import { parseTrustDomain } from '../../src/spiffe/spiffe-id.ts';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { runTraffic } from '../../src/stack/traffic.ts';
import { type Envoy, sdsStat, startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener } from '../support/envoy-config.ts';
import { http } from '../support/http.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';
import { runCommand, type Sidecar, startSidecar } from '../support/sidecar.ts';
import { type Spire, startSpire } from '../support/spire.ts';
import {
  agentSerial,
  issuedSvids,
  localAuthority,
  mintSvid,
  ownBundle,
  validateJwt,
} from '../support/spire-commands.ts';
import { allowed, clientSide, combined, denied, entrypoint, policy, server, trustDomain } from './world.ts';

const partner = parseTrustDomain('partner.test');
const ids = [server, allowed, denied];

// SPIRE dates an SVID back by ten seconds and renews it at half of its life: these are renewed every three seconds or so,
// with more than ten seconds left.
const x509TtlS = 16;

/** A server Envoy and a client Envoy, both fed by one sidecar that gets everything from SPIRE. */
type Mesh = Readonly<{
  sidecar: Sidecar;
  serverEnvoy: Envoy;
  clientEnvoy: Envoy;
  /** mTLS, and a Check for each request. */
  port: number;
  /** No TLS, and a Check for each request. */
  openPort: number;
  /** Into the client Envoy, and on to `port` under this identity. */
  entries: Readonly<Record<'allowed' | 'denied', number>>;
}>;

// Run with SPIRE's programs from PATH. That its images do the same is only type-checked.
test('svidecar between a real SPIRE and two real Envoys', { timeout: 120_000 }, async (t) => {
  const spire = await startSpire(t, { trustDomain });
  if (spire === undefined) return;
  const partnerPem = await federate(t, spire);
  const federatesWith = [`spiffe://${partner}`];
  const entries: string[] = [];
  for (const spiffeId of ids) entries.push(await spire.createEntry({ spiffeId, x509TtlS, federatesWith }));
  const mesh = await startMesh(t, spire);

  await t.test('the Envoys talk over mutual TLS with what SPIRE issued, and Checks see who', async () => {
    assert.deepEqual(await statuses(mesh), { allowed: 200, denied: 403, open: 403 });
    assert.equal((await leafOnWire(mesh.port)).subjectAltName, `URI:${server}`);
    assert.ok((await mesh.serverEnvoy.stat('listener.server.ssl.versions.TLSv1.3')) >= 2);
    assert.ok((await mesh.clientEnvoy.stat('cluster.allowed_to_server.ssl.versions.TLSv1.3')) >= 1);
  });

  await t.test('svidecar fetch x509 prints what the client of SPIRE prints', async (t) => {
    // Each SVID of ours is one that SPIRE gave shortly before or after; another look when it renewed one twice meanwhile.
    await until('the same SVIDs from both', async () => {
      const before = await issuedSvids(spire);
      const { svids } = (await fetchJson(t, spire, 'x509')) as { svids: readonly FetchedSvid[] };
      const after = await issuedSvids(spire);
      const serials = new Set([...before, ...after].map(({ leaf }) => leaf.serialNumber));
      assert.deepEqual(
        svids.map(({ spiffe_id }) => spiffe_id),
        after.map(({ spiffeId }) => spiffeId),
      );
      return svids.every(({ serial }) => serials.has(serial.toUpperCase())) || undefined;
    });
  });

  await t.test('svidecar fetch jwt prints JWT-SVIDs that SPIRE validates', async (t) => {
    const all = await fetchJwts(t, spire, '--audience', 'billing');
    assert.deepEqual(all.map(({ spiffe_id }) => spiffe_id).sort(), [...ids].sort());
    for (const { spiffe_id, jwt, claims } of all) {
      assert.deepEqual(await validateJwt(spire, 'billing', jwt), { spiffe_id, claims });
    }
    const one = await fetchJwts(t, spire, '--audience', 'billing', '--spiffe-id', allowed);
    assert.deepEqual(
      one.map(({ spiffe_id }) => spiffe_id),
      [allowed],
    );
  });

  await t.test('svidecar fetch bundles prints the bundles that SPIRE holds', async (t) => {
    const { trust_domains } = (await fetchJson(t, spire, 'bundles')) as {
      trust_domains: Readonly<Record<string, FetchedBundle>>;
    };
    const own = trust_domains[trustDomain];
    const held = await ownBundle(spire);
    assert.deepEqual(Object.keys(trust_domains), [trustDomain, partner]);
    assert.deepEqual(
      own?.x509_authorities.map((pem) => new X509Certificate(pem).fingerprint256),
      held.x509Authorities.map(({ fingerprint256 }) => fingerprint256),
    );
    assert.deepEqual(
      own?.jwt_authorities.map(({ kid }) => kid),
      held.jwtKeyIds,
    );
    assert.deepEqual(trust_domains[partner]?.x509_authorities, [partnerPem]);
  });

  await t.test('renewed SVIDs reach the wire without a failed request', async (t) => {
    const traffic = startTraffic(t, mesh);
    const serials = new Set<string>();
    await until(
      'three serials on the wire',
      async () => {
        serials.add((await leafOnWire(mesh.port)).serialNumber);
        return serials.size >= 3 || undefined;
      },
      { timeoutMs: 30_000 },
    );
    await traffic.end();
  });

  await t.test('an agent that restarts is found again without a failed request', async (t) => {
    const traffic = startTraffic(t, mesh);
    const before = await stat(spire.socket, { bigint: true });
    await spire.restartAgent();
    const after = await stat(spire.socket, { bigint: true });
    assert.notEqual(after.ctimeNs, before.ctimeNs, 'the socket should be another one');

    const issued = new Set<string>();
    await until('an SVID from the new agent on the wire', async () => {
      for (const { leaf } of await issuedSvids(spire)) issued.add(leaf.serialNumber);
      return issued.has((await leafOnWire(mesh.port)).serialNumber) || undefined;
    });
    await traffic.end();
    assert.equal((await mesh.sidecar.admin('/ready')).status, 200);
  });

  await t.test('a new authority replaces the old one without a failed request', async (t) => {
    const traffic = startTraffic(t, mesh);
    const oldId = await activateNewAuthority(mesh, spire);
    const agentsOwn = await agentSerial(spire);
    const serversOwn = (await leafOnWire(spire.serverPort)).serialNumber;
    await localAuthority(spire, 'taint', '-authorityID', oldId);
    // Revoked any sooner, SPIRE's server and agent would stop trusting each other.
    await until("SPIRE's own SVIDs to be of the new authority", async () => {
      const { serialNumber } = await leafOnWire(spire.serverPort);
      return (serialNumber !== serversOwn && (await agentSerial(spire)) !== agentsOwn) || undefined;
    });
    await localAuthority(spire, 'revoke', '-authorityID', oldId);
    const left = (await ownBundle(spire)).x509Authorities;
    assert.equal(left.length, 1);
    await waitForAuthorities(mesh, left);
    await traffic.end();
  });

  await t.test('deleted entries take the identity away, and new ones give it back', async (t) => {
    for (const id of entries) await spire.deleteEntry(id);
    const unready = await until('the sidecar not to be ready', async () => {
      const { status, body } = await mesh.sidecar.admin('/ready');
      return status === 503 ? body : undefined;
    });
    assert.match(unready, /no identity is held: .*no identity issued/);
    assert.deepEqual(await statuses(mesh), { allowed: 503, denied: 503, open: 503 });
    const { code, output } = await runCommand(t, 'fetch', 'x509', '--workload-api', spire.workloadApi);
    assert.equal(code, 1);
    assert.match(output, /no identity issued/);

    for (const spiffeId of ids) await spire.createEntry({ spiffeId, x509TtlS });
    await until('everything as it was', async () => {
      assert.deepEqual(await statuses(mesh), { allowed: 200, denied: 403, open: 403 });
      return true;
    });
  });

  for (const secret of [server, 'ROOTCA']) {
    assert.equal(await mesh.serverEnvoy.stat(sdsStat(secret, 'update_rejected')), 0);
  }
});

// Envoy tells a Check of the peer's leaf alone, and the bundle has no more than the root.
test('below an upstream authority Checks know the intermediate, and the last one of peers not yet renewed', async (t) => {
  const spire = await startSpire(t, { trustDomain, upstream: true });
  if (spire === undefined) return;
  for (const spiffeId of ids) await spire.createEntry({ spiffeId, x509TtlS });
  const mesh = await startMesh(t, spire);
  assert.deepEqual(await statuses(mesh), { allowed: 200, denied: 403, open: 403 });

  const peer = { port: mesh.port, identity: await mintSvid(spire, allowed) };
  assert.equal((await probeTls(peer)).status, 200);
  const traffic = startTraffic(t, mesh);
  await activateNewAuthority(mesh, spire);
  await traffic.end();
  assert.equal((await probeTls(peer)).status, 200, 'the peer still has an SVID of the intermediate before');
});

type FetchedSvid = Readonly<{ spiffe_id: string; serial: string }>;
type FetchedJwt = Readonly<{ spiffe_id: string; jwt: string; claims: Record<string, unknown> }>;
type FetchedBundle = Readonly<{
  x509_authorities: readonly string[];
  jwt_authorities: readonly Readonly<{ kid: string }>[];
}>;

async function fetchJson(t: TestContext, spire: Spire, ...what: readonly string[]): Promise<unknown> {
  const { code, output } = await runCommand(t, 'fetch', ...what, '--workload-api', spire.workloadApi);
  assert.equal(code, 0, output);
  return JSON.parse(output);
}

async function fetchJwts(
  t: TestContext,
  spire: Spire,
  ...flags: readonly string[]
): Promise<readonly FetchedJwt[]> {
  return ((await fetchJson(t, spire, 'jwt', ...flags)) as { svids: readonly FetchedJwt[] }).svids;
}

/** Gives SPIRE a bundle of another trust domain, and gives its one authority as PEM. */
async function federate(t: TestContext, spire: Spire): Promise<string> {
  const authority = await createX509Authority({ trustDomain: partner, ttlMs: 3_600_000, now: Date.now() });
  const pem = encodeCertificatesPem([authority.certificate]);
  const path = join(await tempDirectory(t), 'partner.pem');
  await writeFile(path, pem);
  await spire.server('bundle', 'set', '-id', `spiffe://${partner}`, '-path', path);
  return pem.toString();
}

async function startMesh(t: TestContext, spire: Spire): Promise<Mesh> {
  const file = join(await tempDirectory(t), 'bundle.tar.gz');
  await buildWasmBundle(t, { files: { 'policy.rego': policy }, entrypoints: [entrypoint], into: file });
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: spire.workloadApi } },
      trust_domain: trustDomain,
      ext_authz: { path: entrypoint, peer: { verify_certificate: 'required' } },
      policy: { engine: 'wasm', bundle: { file }, timeout: '2s' },
      decision_log: { console: false },
    },
  });
  const [port, openPort] = [await freePort(), await freePort()];
  const entries = { allowed: await freePort(), denied: await freePort() };
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const serverSide = {
    listeners: [
      httpListener({ name: 'server', port, tls, filters: [extAuthz()] }),
      httpListener({ name: 'open', port: openPort, filters: [extAuthz()] }),
    ],
    clusters: [],
  };
  const clients = [
    clientSide('allowed', allowed, entries.allowed, port),
    clientSide('denied', denied, entries.denied, port),
  ];
  const config = combined(sidecar.socket, serverSide);
  const serverEnvoy = await startEnvoy(t, { name: 'server envoy', config });
  const clientEnvoy = await startEnvoy(t, {
    name: 'client envoy',
    config: combined(sidecar.socket, ...clients),
  });
  return { sidecar, serverEnvoy, clientEnvoy, port, openPort, entries };
}

async function statuses({ entries, openPort }: Mesh): Promise<Record<'allowed' | 'denied' | 'open', number>> {
  const status = async (port: number): Promise<number> => (await http({ port, path: '/' })).status;
  return {
    allowed: await status(entries.allowed),
    denied: await status(entries.denied),
    open: await status(openPort),
  };
}

/** Requests through both Envoys, with many new connections between them, of which none may fail. */
function startTraffic(t: TestContext, { entries }: Mesh): { end(): Promise<void> } {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const report = runTraffic(
    {
      request: { port: entries.allowed, path: '/' },
      loops: 4,
      pauseMs: 10,
      requestsPerConnection: 10,
      maxRequests: 50_000,
      sleep,
    },
    stop.signal,
  );
  return {
    async end() {
      stop.abort();
      const { sent, failures } = await report;
      assert.deepEqual(failures, []);
      assert.ok(sent >= 20, `only ${sent} requests were sent`);
    },
  };
}

/** The certificate that a server shows to whoever connects. */
function leafOnWire(port: number): Promise<X509Certificate> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
    socket.setTimeout(5000, () => socket.destroy(new Error('no handshake')));
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      const leaf = socket.getPeerX509Certificate();
      socket.destroy();
      if (leaf === undefined) reject(new Error('a server without a certificate'));
      else resolve(leaf);
    });
  });
}

/** Has SPIRE issue under a new authority, until both Envoys use nothing else. Gives the ID of the authority before. */
async function activateNewAuthority(mesh: Mesh, spire: Spire): Promise<string> {
  const { issuer } = await leafOnWire(mesh.port);
  const before = (await localAuthority(spire, 'show')).active?.authority_id ?? '';
  const next = (await localAuthority(spire, 'prepare')).prepared_authority?.authority_id ?? '';
  await waitForAuthorities(mesh, (await ownBundle(spire)).x509Authorities);
  await localAuthority(spire, 'activate', '-authorityID', next);
  const issued = new Set<string>();
  await until('SVIDs of the new authority in both Envoys', async () => {
    for (const { leaf } of await issuedSvids(spire)) {
      if (leaf.issuer !== issuer) issued.add(leaf.serialNumber);
    }
    return (await serialsInUse(mesh)).every((serial) => issued.has(serial)) || undefined;
  });
  return before;
}

type EnvoyCerts = Readonly<{
  certificates: readonly Readonly<{ ca_cert?: readonly Readonly<{ serial_number: string }>[] }>[];
}>;

/** Polls until each of the two Envoys trusts these authorities and no other. */
async function waitForAuthorities(mesh: Mesh, expected: readonly X509Certificate[]): Promise<void> {
  const wanted = expected.map(({ serialNumber }) => serialNumber).sort();
  await until('the authorities in both Envoys', async () => {
    for (const envoy of [mesh.serverEnvoy, mesh.clientEnvoy]) {
      const { certificates } = JSON.parse(await envoy.admin('/certs')) as EnvoyCerts;
      for (const { ca_cert = [] } of certificates) {
        const serials = ca_cert.map(({ serial_number }) => serial_number.toUpperCase());
        assert.deepEqual(serials.sort(), wanted);
      }
    }
    return true;
  });
}

/** The serials of the SVIDs that the two Envoys show to others. */
async function serialsInUse({ serverEnvoy, clientEnvoy }: Mesh): Promise<readonly string[]> {
  const used = [...(await serverEnvoy.certificates()), ...(await clientEnvoy.certificates())];
  return used.map(({ serial_number }) => serial_number.toUpperCase());
}
