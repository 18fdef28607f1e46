import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { opaPath } from '../support/binaries.ts';
import { type BundleServer, startBundleServer } from '../support/bundle-server.ts';
import { packBundle, unpackBundle } from '../support/bundles.ts';
import { http as request } from '../support/http.ts';
import { freePort } from '../support/ports.ts';
import { runProcess, startProcess, tempDirectory, until } from '../support/process.ts';
import { runCommand, type Sidecar, type SidecarConfig, startSidecar } from '../support/sidecar.ts';
import { startTrustDomain } from '../support/trust-domain.ts';
import { type Caller, connectCaller, http } from './caller.ts';
import { fetchSvid } from './svids.ts';
import { startTwoPeers } from './two-peers.ts';
import { allowed, denied, devIdentity, entrypoint, trustDomain } from './world.ts';

/** Lets one peer pass. */
const letting = (peer: string): string => `package envoy.authz

default allow := false

allow if input.spiffe.source.id == "${peer}"
`;

const every = { min: '1s', max: '1s' };

/** A bundle for wasm and, unlike what `opa build` leaves in it, with the whole policy in Rego. */
async function built(t: TestContext, rego: string, revision: string, signingKey?: string): Promise<Buffer> {
  const directory = await tempDirectory(t);
  const source = join(directory, 'source');
  await mkdir(source);
  await writeFile(join(source, 'authz.rego'), rego);
  const output = join(directory, 'bundle.tar.gz');
  const sign = signingKey === undefined ? [] : ['--signing-alg', 'ES256', '--signing-key', signingKey];
  const args = ['build', '-t', 'wasm', '-e', entrypoint, '-r', revision, ...sign, '--bundle', '.'];
  const { code, output: said } = await runProcess(t, {
    name: 'opa build',
    command: await opaPath(),
    args: [...args, '-o', output],
    cwd: source,
  });
  assert.equal(code, 0, said);
  const bundle = await readFile(output);
  if (signingKey !== undefined) return bundle;
  const files = unpackBundle(bundle);
  files.set('authz.rego', Buffer.from(rego));
  // A manifest that names wasm modules is refused by an OPA without a wasm runtime.
  files.set('.manifest', Buffer.from(JSON.stringify({ revision, roots: ['envoy'] })));
  return packBundle(files);
}

function config(bundle: object, more: SidecarConfig = {}): SidecarConfig {
  return {
    identity: devIdentity(),
    ext_authz: { path: entrypoint },
    policy: { engine: 'wasm', timeout: '2s', bundle },
    ...more,
  };
}

type StatusBody = Readonly<{
  policy: { bundles: readonly { problem?: string; service?: { url: string; answered_at?: string } }[] };
}>;

type Ask = (peer: string) => Promise<string | undefined>;

function asking({ check }: Pick<Caller, 'check'>): Ask {
  return async (peer) => (await check({ source: { principal: peer }, request: { http } })).http;
}

async function decides(ask: Ask, peer: string, answer: 'OK' | 'Forbidden'): Promise<void> {
  await until(`${answer} for ${peer}`, async () => (await ask(peer)) === answer || undefined);
}

async function readiness(sidecar: Sidecar): Promise<string> {
  const { status, body } = await sidecar.admin('/ready');
  return `${status} ${body}`;
}

test('decisions of a real Envoy follow what the service publishes, and bad versions change nothing', async (t) => {
  const service = await startBundleServer(t, { longPoll: true });
  service.publish(await built(t, letting(allowed), 'one'), '"one"');
  const polling = { ...every, long_poll: '30s' };
  const sidecar = await startSidecar(t, { config: config({ url: service.url, polling }) });
  const statuses = await startTwoPeers(t, sidecar);
  assert.equal(await statuses(), '200 403');

  service.publish(await built(t, letting(denied), 'two'), '"two"');
  await until('the new policy', async () => (await statuses()).endsWith('200') || undefined);
  assert.equal(await statuses(), '403 200');

  for (const [etag, bundle] of [
    ['"page"', Buffer.from('<html>log in</html>')],
    ['"cut"', (await built(t, letting(allowed), 'three')).subarray(0, 500)],
  ] as const) {
    service.publish(bundle, etag);
    const refusals = 'svidecar_policy_bundles_total{bundle="policy",outcome="refused"}';
    const before = await sidecar.metric(refusals);
    await until('a refusal', async () => (await sidecar.metric(refusals)) > before || undefined);
    assert.equal(await statuses(), '403 200');
    assert.match(await readiness(sidecar), /^200 /);
  }

  service.publish(await built(t, letting(allowed), 'four'), '"four"');
  await until('the good policy', async () => (await statuses()).startsWith('200') || undefined);
  assert.ok((await sidecar.metric(requestsOf('new'))) >= 4);
  assert.ok((await sidecar.metric('svidecar_policy_bundle_answered_timestamp_seconds{bundle="policy"}')) > 0);
  assert.ok(service.requests().some(({ prefer }) => prefer === 'modes=snapshot,delta;wait=30'));
});

function requestsOf(outcome: string): string {
  return `svidecar_policy_bundle_requests_total{bundle="policy",outcome="${outcome}"}`;
}

test('a service that is away leaves the last policy in force, one on disk makes ready at the start, and none does not', async (t) => {
  const service = await startBundleServer(t);
  service.publish(await built(t, letting(allowed), 'kept'), '"kept"');
  const persist = join(await tempDirectory(t), 'kept');
  const bundle = { url: service.url, polling: every, persist_dir: persist };
  const sidecar = await startSidecar(t, { config: config(bundle) });
  await until('a 304', async () => (await sidecar.metric(requestsOf('unchanged'))) > 0 || undefined);
  await service.close();
  await until('a failure', async () => (await sidecar.metric(requestsOf('failed'))) > 2 || undefined);
  assert.match(await readiness(sidecar), /^200 /);
  const { policy: told } = JSON.parse((await sidecar.admin('/status')).body) as StatusBody;
  assert.match(told.bundles[0]?.problem ?? '', /ECONNREFUSED/);
  assert.equal(told.bundles[0]?.service?.url, service.url);
  assert.ok(Date.parse(told.bundles[0]?.service?.answered_at ?? '') > 0);
  await decides(asking(connectCaller(t, sidecar)), allowed, 'OK');
  const complaints = sidecar
    .process()
    .recentLines()
    .filter((line) => line.includes('ECONNREFUSED'));
  assert.equal(complaints.length, 1, 'one line for one trouble');

  await sidecar.process().stop();
  await sidecar.restart();
  await decides(asking(connectCaller(t, sidecar)), allowed, 'OK');

  const { persist_dir: _, ...withoutDisk } = bundle;
  const bare = await startSidecar(t, { config: config(withoutDisk), waitForReady: false });
  await until('the reason', async () => {
    const said = await readiness(bare).catch(() => '');
    return (said.startsWith('503 ') && said.includes('ECONNREFUSED')) || undefined;
  });
});

/** A bundle of data alone. */
function members(...ids: readonly string[]): Buffer {
  return packBundle(
    new Map([
      ['.manifest', Buffer.from(JSON.stringify({ revision: ids.join(), roots: ['teams'] }))],
      ['data.json', Buffer.from(JSON.stringify({ teams: { members: ids } }))],
    ]),
  );
}

test('a delta of one bundle changes decisions, and after a restart without the service the last snapshot counts', async (t) => {
  const policies = await startBundleServer(t);
  const teams = await startBundleServer(t);
  const rego = 'package envoy.authz\n\nallow if input.spiffe.source.id in data.teams.members\n';
  policies.publish(await built(t, rego, 'one'), '"one"');
  teams.publish(members(allowed), '"one"');
  const persist = await tempDirectory(t);
  const bundles = [
    { name: 'authz', url: policies.url, polling: every, persist_dir: persist },
    { name: 'teams', url: teams.url, polling: every, persist_dir: persist },
  ];
  const sidecar = await startSidecar(t, { config: config(bundles) });
  const ask = asking(connectCaller(t, sidecar));
  assert.deepEqual([await ask(allowed), await ask(denied)], ['OK', 'Forbidden']);
  const patch = { data: [{ op: 'upsert', path: '/teams/members/-', value: denied }] };
  const delta = packBundle(
    new Map([
      ['.manifest', Buffer.from(JSON.stringify({ revision: 'both', roots: ['teams'] }))],
      ['patch.json', Buffer.from(JSON.stringify(patch))],
    ]),
  );
  teams.publishDelta(delta, members(allowed, denied), '"two"');
  await decides(ask, denied, 'OK');
  assert.equal(await ask(allowed), 'OK');
  const refused = 'svidecar_policy_bundles_total{bundle="teams",outcome="refused"}';
  assert.equal(await sidecar.metric(refused), 0, 'the delta was taken, and no snapshot after it');

  await Promise.all([policies.close(), teams.close()]);
  await sidecar.process().stop();
  await sidecar.restart();
  const again = asking(connectCaller(t, sidecar));
  assert.deepEqual([await again(allowed), await again(denied)], ['OK', 'Forbidden']);
});

test('a token is used as it is rotated', async (t) => {
  const service = await startBundleServer(t);
  const token = join(await tempDirectory(t), 'token');
  service.publish(await built(t, letting(allowed), 'one'), '"one"');
  service.requireToken('first');
  await writeFile(token, 'first\n');
  const bundle = { url: service.url, polling: every, auth: { bearer_file: token } };
  const sidecar = await startSidecar(t, { config: config(bundle) });
  const ask = asking(connectCaller(t, sidecar));
  assert.equal(await ask(allowed), 'OK');
  service.requireToken('second');
  service.publish(await built(t, letting(denied), 'two'), '"two"');
  await sidecar.process().waitForLine(/answered with status 401/);
  assert.equal(await ask(allowed), 'OK');
  await writeFile(token, 'second\n');
  await decides(ask, denied, 'OK');
  assert.doesNotMatch(sidecar.process().recentLines().join('\n'), /Bearer/);
});

test('with SPIFFE IDs the service sees our X509-SVID, before and after a rotation, and a service with another ID gives nothing', async (t) => {
  const [sidecarId, serviceId] = ['spiffe://acme.test/sidecar', 'spiffe://acme.test/bundles'];
  const domain = await startTrustDomain(t, trustDomain, [sidecarId, serviceId]);
  const tls = async (id: string) => ({
    ...(await fetchSvid(t, domain.workloadApi, id)),
    ca: domain.authoritiesPem(),
  });
  const service = await startBundleServer(t, { tls: await tls(serviceId) });
  service.publish(await built(t, letting(allowed), 'one'), '"one"');
  const identity = { source: 'workload_api', workload_api: { address: domain.workloadApi } };
  const mutual = (url: string) =>
    config({ url, polling: every, auth: { spiffe_ids: [serviceId] } }, { identity });
  const sidecar = await startSidecar(t, { config: mutual(service.url) });
  assert.equal(service.requests()[0]?.client, `URI:${sidecarId}`);
  const ask = asking(connectCaller(t, sidecar));
  assert.equal(await ask(allowed), 'OK');
  await domain.activateAuthority();
  service.publish(await built(t, letting(denied), 'two'), '"two"');
  await decides(ask, denied, 'OK');

  const other = await startBundleServer(t, { tls: await tls(sidecarId) });
  other.publish(await built(t, letting(allowed), 'one'), '"one"');
  const fooled = await startSidecar(t, { config: mutual(other.url), waitForReady: false });
  await fooled
    .process()
    .waitForLine(/the server is spiffe:\/\/acme\.test\/sidecar, expected spiffe:\/\/acme/);
  assert.equal(other.requests().length, 0, 'nothing was asked of it');
  const online = await runCommand(t, 'validate', '--online', '--config', fooled.configFile);
  assert.equal(online.code, 1);
  assert.match(online.output, /^policy\.bundle\.url: failed: the server is spiffe:\/\/acme\.test\/sidecar/m);
});

test('a version that is not signed by the key keeps the last good one in force', async (t) => {
  const directory = await tempDirectory(t);
  const keyFile = async (name: string) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    await writeFile(join(directory, `${name}.key`), privateKey.export({ format: 'pem', type: 'pkcs8' }));
    await writeFile(join(directory, `${name}.pub`), publicKey.export({ format: 'pem', type: 'spki' }));
    return join(directory, name);
  };
  const [ours, theirs] = [await keyFile('ours'), await keyFile('theirs')];
  const service = await startBundleServer(t);
  service.publish(await built(t, letting(allowed), 'one', `${ours}.key`), '"one"');
  const bundle = { url: service.url, polling: every, verification_key: `${ours}.pub` };
  const sidecar = await startSidecar(t, { config: config(bundle) });
  const ask = asking(connectCaller(t, sidecar));
  assert.equal(await ask(allowed), 'OK');
  service.publish(await built(t, letting(denied), 'two', `${theirs}.key`), '"two"');
  await sidecar.process().waitForLine(/not by verification_key/);
  assert.equal(await ask(denied), 'Forbidden');
  assert.equal(await ask(allowed), 'OK');
  service.publish(await built(t, letting(denied), 'three', `${ours}.key`), '"three"');
  await decides(ask, denied, 'OK');
});

/** A real OPA that takes its policy from the service. */
async function startOpaOf(
  t: TestContext,
  service: BundleServer,
): Promise<(peer: string) => Promise<unknown>> {
  const port = await freePort();
  const polling = { min_delay_seconds: 1, max_delay_seconds: 1, long_polling_timeout_seconds: 30 };
  const file = join(await tempDirectory(t), 'opa.json');
  await writeFile(
    file,
    JSON.stringify({
      services: { bundles: { url: service.origin } },
      bundles: { authz: { service: 'bundles', resource: service.path, polling } },
    }),
  );
  await startProcess(t, {
    name: 'opa',
    command: await opaPath(),
    args: `run --server --disable-telemetry --log-level error --addr 127.0.0.1:${port} -c ${file}`.split(' '),
  });
  await until('opa to have its bundle', async () => {
    const answer = await request({ port, path: '/health?bundles' }).catch(() => undefined);
    return answer?.status === 200 || undefined;
  });
  return async (peer) => {
    const url = `http://127.0.0.1:${port}/v1/data/${entrypoint}`;
    const body = JSON.stringify({ input: { spiffe: { source: { id: peer } } } });
    const { result } = (await (await fetch(url, { method: 'POST', body })).json()) as { result?: unknown };
    return result === true ? 'OK' : 'Forbidden';
  };
}

for (const longPoll of [false, true]) {
  test(`a real OPA and we decide alike by one service that ${longPoll ? 'waits' : 'does not wait'}, and ask it alike`, async (t) => {
    const ours = await startBundleServer(t, { longPoll });
    const theirs = await startBundleServer(t, { longPoll });
    const publish = (bundle: Buffer, etag: string): void => {
      for (const service of [ours, theirs]) service.publish(bundle, etag);
    };
    publish(await built(t, letting(allowed), 'one'), '"one"');
    const sidecar = await startSidecar(t, {
      config: config({ url: ours.url, polling: { ...every, long_poll: '30s' } }),
    });
    const asked = [asking(connectCaller(t, sidecar)), await startOpaOf(t, theirs)];
    const decisions = (peer: string) => Promise.all(asked.map((ask) => ask(peer)));
    for (const [etag, peer, other] of [
      ['"one"', allowed, denied],
      ['"two"', denied, allowed],
    ] as const) {
      publish(await built(t, letting(peer), etag), etag);
      await until('both to follow', async () => {
        return (await decisions(peer)).every((answer) => answer === 'OK') || undefined;
      });
      assert.deepEqual(await decisions(other), ['Forbidden', 'Forbidden']);
    }
    const shapes = (service: BundleServer) =>
      new Set(
        service
          .requests()
          .filter(({ ifNoneMatch }) => (ifNoneMatch ?? '') !== '')
          .map(({ prefer, ifNoneMatch }) => `${prefer} ${ifNoneMatch}`),
      );
    await until('both to have asked beyond the last version', async () => {
      const done = [ours, theirs].every((service) => [...shapes(service)].some((one) => /"two"/.test(one)));
      return Promise.resolve(done || undefined);
    });
    assert.deepEqual(shapes(ours), shapes(theirs));
  });
}
