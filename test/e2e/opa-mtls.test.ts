import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { opaPath } from '../support/binaries.ts';
import { freePort } from '../support/ports.ts';
import { startProcess, tempDirectory, until } from '../support/process.ts';
import { runCommand, type SidecarConfig, startSidecar } from '../support/sidecar.ts';
import { startTrustDomain, type TestTrustDomain } from '../support/trust-domain.ts';
import { type Caller, connectCaller, http } from './caller.ts';
import { fetchSvid, type PemIdentity } from './svids.ts';
import { allowed, entrypoint, policy, trustDomain } from './world.ts';

const sidecarId = 'spiffe://acme.test/sidecar';
const opaId = 'spiffe://acme.test/opa';
const revision = 'svidecar_svid_rotations_total{spiffe_id="spiffe://acme.test/sidecar"}';

/** Lets nobody ask but the sidecar, by its certificate. */
const onlySidecar = `package system.authz

default allow := false

allow if {
	some uri in input.client_certificates[0].URIs
	uri.Scheme == "spiffe"
	uri.Host == "${trustDomain}"
	uri.Path == "/sidecar"
}
`;

type TlsOpa = Readonly<{
  url: string;
  show(identity: PemIdentity): Promise<void>;
  trust(pem: string): Promise<void>;
}>;

/** A real OPA that wants certificates of the trust domain; what it shows and trusts can be turned. */
async function startTlsOpa(t: TestContext, identity: PemIdentity, bundlePem: string): Promise<TlsOpa> {
  const directory = await tempDirectory(t);
  const file = (name: string): string => join(directory, name);
  const replace = async (name: string, content: string): Promise<void> => {
    await writeFile(file(`new-${name}`), content);
    await rename(file(`new-${name}`), file(name));
  };
  const show = async ({ certificatePem, privateKeyPem }: PemIdentity): Promise<void> => {
    await replace('tls.key', privateKeyPem);
    await replace('tls.pem', certificatePem);
  };
  await show(identity);
  await replace('ca.pem', bundlePem);
  await replace('policy.rego', policy);
  await replace('authz.rego', onlySidecar);
  const port = await freePort();
  await startProcess(t, {
    name: 'opa',
    command: await opaPath(),
    args: [
      'run --server --disable-telemetry --log-level error --authentication tls --authorization basic'.split(
        ' ',
      ),
      ['--addr', `127.0.0.1:${port}`, '--min-tls-version', '1.3', '--tls-cert-refresh-period', '100ms'],
      ['--tls-cert-file', file('tls.pem'), '--tls-private-key-file', file('tls.key')],
      ['--tls-ca-cert-file', file('ca.pem'), file('policy.rego'), file('authz.rego')],
    ].flat(),
  });
  await until('opa to listen', () => canConnect(port));
  return { url: `https://127.0.0.1:${port}`, show, trust: (pem) => replace('ca.pem', pem) };
}

function canConnect(port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(undefined));
    socket.once('connect', () => socket.destroy());
  });
}

function config(domain: TestTrustDomain, url: string, spiffeIds: readonly string[]): SidecarConfig {
  return {
    identity: { source: 'workload_api', workload_api: { address: domain.workloadApi } },
    ext_authz: { path: entrypoint },
    policy: { opa: { url, spiffe_ids: spiffeIds }, timeout: '2s' },
  };
}

const asked = { source: { principal: allowed }, request: { http } };

test('a real OPA that lets only our X509-SVID in is asked over mTLS, and no Check fails while both sides rotate', async (t) => {
  const domain = await startTrustDomain(t, trustDomain, [sidecarId, opaId]);
  const opa = await startTlsOpa(t, await fetchSvid(t, domain.workloadApi, opaId), domain.authoritiesPem());
  const sidecar = await startSidecar(t, { config: config(domain, opa.url, [opaId]) });
  const { check }: Pick<Caller, 'check'> = connectCaller(t, sidecar);

  const stop = new AbortController();
  let answered = 0;
  const flow = Array.from({ length: 8 }, async () => {
    while (!stop.signal.aborted) {
      assert.deepEqual(await check(asked), { http: 'OK', reason: undefined });
      answered += 1;
    }
  });
  const more = async (count: number): Promise<void> => {
    const goal = answered + count;
    await until('more Checks', () => Promise.resolve(answered >= goal || undefined));
  };
  try {
    await more(200);
    for (let round = 1; round <= 2; round++) {
      await domain.prepareAuthority();
      await opa.trust(domain.authoritiesPem());
      await more(200);
      await domain.activateAuthority();
      await opa.show(await fetchSvid(t, domain.workloadApi, opaId));
      await until('the new SVID', async () => (await sidecar.metric(revision)) >= round || undefined);
      await more(200);
    }
  } finally {
    stop.abort();
  }
  await Promise.all(flow);
  t.diagnostic(`${answered} Checks`);
});

test('an OPA that is somebody else is not asked, and validate --online says who it is', async (t) => {
  const domain = await startTrustDomain(t, trustDomain, [sidecarId, opaId]);
  const { url } = await startTlsOpa(
    t,
    await fetchSvid(t, domain.workloadApi, opaId),
    domain.authoritiesPem(),
  );
  const right = await startSidecar(t, { config: config(domain, url, [opaId]) });
  const good = await runCommand(t, 'validate', '--online', `--config=${right.configFile}`);
  assert.equal(good.code, 0, good.output);
  assert.match(good.output, /policy: OPA at https:\S+ is healthy/);

  const wrong = await startSidecar(t, { config: config(domain, url, ['spiffe://acme.test/other']) });
  const { check } = connectCaller(t, wrong);
  assert.deepEqual(await check(asked), { http: 'Forbidden', reason: 'engine_unavailable' });
  const bad = await runCommand(t, 'validate', '--online', `--config=${wrong.configFile}`);
  assert.equal(bad.code, 1);
  assert.match(bad.output, /the server is spiffe:\/\/acme\.test\/opa, expected spiffe:\/\/acme\.test\/other/);
});
