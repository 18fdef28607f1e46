import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { packBundle, unpackBundle } from '../support/bundles.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { tempDirectory, until } from '../support/process.ts';
import { runCommand, startSidecar, writeConfig } from '../support/sidecar.ts';
import { startTwoPeers } from './two-peers.ts';
import { allowed, denied, devIdentity, entrypoint } from './world.ts';

/** Who passes is data, which another bundle has. */
const rego = `package envoy.authz

default allow := false

allow if input.spiffe.source.id in data.teams.members
`;

async function policyBundle(t: TestContext, revision: string, roots: readonly string[]): Promise<Buffer> {
  const into = join(await tempDirectory(t), 'bundle.tar.gz');
  await buildWasmBundle(t, { files: { 'authz.rego': rego }, entrypoints: [entrypoint], into });
  const files = unpackBundle(await readFile(into));
  files.set('.manifest', Buffer.from(JSON.stringify({ revision, roots })));
  return packBundle(files);
}

function teamBundle(revision: string, content: object): Buffer {
  const files = { '.manifest': { revision, roots: ['teams'] }, ...content };
  return packBundle(
    new Map(Object.entries(files).map(([path, value]) => [path, Buffer.from(JSON.stringify(value))])),
  );
}

const members = (...ids: string[]) => ({ 'data.json': { teams: { members: ids } } });

type Record = Readonly<{ bundles?: unknown; outcome?: unknown; peer?: unknown }>;

test('two bundles decide together: one changes, a bad one is refused, and records name both', async (t) => {
  const directory = await tempDirectory(t);
  const put = async (name: string, bundle: Buffer): Promise<void> => {
    await writeFile(join(directory, `${name}.new`), bundle);
    await rename(join(directory, `${name}.new`), join(directory, name));
  };
  await put('authz', await policyBundle(t, 'p1', ['envoy/authz']));
  await put('teams', teamBundle('t1', members(allowed)));
  const bundle = ['authz', 'teams'].map((name) => ({ name, file: join(directory, name) }));
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint },
      policy: { engine: 'wasm', timeout: '2s', bundle },
    },
  });
  const statuses = await startTwoPeers(t, sidecar);
  const decided = (expected: string) =>
    until(expected, async () => (await statuses()) === expected || undefined);
  const states = async () => {
    const { body } = await sidecar.admin('/status');
    const status = JSON.parse(body) as {
      policy: {
        bundles: readonly Readonly<{
          name: string;
          revision?: string;
          problem?: string;
          activated_at?: string;
        }>[];
      };
    };
    return status.policy.bundles;
  };
  const lastRecord = (): Record => {
    const lines = sidecar
      .process()
      .recentLines()
      .filter((line) => line.includes('"decision_id"'));
    return JSON.parse(lines.at(-1) ?? '{}') as Record;
  };
  const recorded = (authz: string, teams: string) =>
    until(`a record of ${authz} and ${teams}`, () => {
      const expected = { authz: { revision: authz }, teams: { revision: teams } };
      return JSON.stringify(lastRecord().bundles) === JSON.stringify(expected) || undefined;
    });

  await decided('200 403');
  await recorded('p1', 't1');

  await put('teams', teamBundle('t2', members(denied)));
  await decided('403 200');
  await recorded('p1', 't2');

  await put(
    'teams',
    teamBundle('t3', {
      'patch.json': { data: [{ op: 'upsert', path: '/teams/members/-', value: allowed }] },
    }),
  );
  await decided('200 200');
  await recorded('p1', 't3');

  const refusals = 'svidecar_policy_bundles_total{bundle="teams",outcome="refused"}';
  for (const [bad, why] of [
    [
      teamBundle('t4', { 'data.json': { teams: { members: [] }, envoy: { authz: { allow: true } } } }),
      /data at "\/envoy" is outside/,
    ],
    [Buffer.from('no bundle'), /not a gzip file/],
  ] as const) {
    const before = await sidecar.metric(refusals);
    await put('teams', bad);
    await until('the refusal', async () => (await sidecar.metric(refusals)) > before || undefined);
    assert.equal(await statuses(), '200 200');
    const [authz, teams] = await states();
    assert.equal(authz?.problem, undefined);
    assert.equal(teams?.revision, 't3');
    assert.match(teams?.problem ?? '', why);
    assert.match(teams?.activated_at ?? '', /^\d{4}-/);
    await recorded('p1', 't3');
  }

  await put('authz', await policyBundle(t, 'p2', ['envoy']));
  await until('the new policy', async () => (await states())[0]?.revision === 'p2' || undefined);
  assert.equal(await statuses(), '200 200');
  await recorded('p2', 't3');
});

test('a sidecar is not ready before all of its bundles are there', async (t) => {
  const directory = await tempDirectory(t);
  await writeFile(join(directory, 'authz'), await policyBundle(t, 'p1', ['envoy/authz']));
  const bundle = ['authz', 'teams'].map((name) => ({ name, file: join(directory, name) }));
  const config = {
    identity: devIdentity(),
    ext_authz: { path: entrypoint },
    policy: { engine: 'wasm', timeout: '2s', bundle },
  };
  const checked = await runCommand(t, 'validate', '--config', await writeConfig(t, config));
  assert.equal(checked.code, 64);
  assert.match(checked.output, /policy\.bundle\[1\]\.file: .*teams does not exist/);

  const sidecar = await startSidecar(t, { config, waitForReady: false });
  const readiness = async (): Promise<string> => {
    const { status, body } = await sidecar.admin('/ready');
    return `${status} ${body}`;
  };
  await until(
    'the missing bundle',
    async () => /^503 .*bundle teams: .*does not exist/.test(await readiness()) || undefined,
  );
  await writeFile(join(directory, 'teams'), teamBundle('t1', members(allowed)));
  await until('readiness', async () => (await readiness()).startsWith('200 ') || undefined);
});
