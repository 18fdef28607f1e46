import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createFileBundleSource } from '../../../../src/policy/bundle/file-bundle-source.ts';
import { createWasmEngine, type WasmEngine } from '../../../../src/policy/wasm/opa-wasm.ts';
import { sleep } from '../../../../src/runtime/abort.ts';
import { silentLogger } from '../../../../src/runtime/log.ts';
import { labBundle, packBundle } from '../../../support/bundles.ts';
import { tempDirectory, until } from '../../../support/process.ts';

const forever = new AbortController().signal;

type Lab = Readonly<{
  engine: WasmEngine;
  /** Puts a version of a bundle in place. */
  put(name: string, bundle: Buffer): Promise<void>;
  problemOf(name: string, pattern: RegExp): Promise<unknown>;
  inForce(revisions: Readonly<Record<string, string>>): Promise<unknown>;
  counts: Readonly<Record<string, number>>;
  start(): void;
}>;

async function setUp(t: TestContext, names: readonly string[]): Promise<Lab> {
  const directory = await tempDirectory(t);
  const counts: Record<string, number> = {};
  const engine = createWasmEngine({
    sources: names.map((name) => createFileBundleSource({ name, file: join(directory, name), sleep })),
    timeoutMs: 30_000,
    workers: 1,
    now: () => performance.now(),
    epochNow: Date.now,
    sleep,
    random: Math.random,
    log: silentLogger,
    meter: {
      bundleLoaded(bundle, outcome) {
        counts[`${bundle} ${outcome}`] = (counts[`${bundle} ${outcome}`] ?? 0) + 1;
      },
      workerReplaced() {},
    },
  });
  const stop = new AbortController();
  let run: Promise<void> | undefined;
  t.after(async () => {
    stop.abort();
    await run;
    engine.close();
  });
  const state = (name: string) => engine.bundles().find((bundle) => bundle.name === name);
  return {
    engine,
    counts,
    async put(name, bundle) {
      await writeFile(join(directory, `${name}.new`), bundle);
      await rename(join(directory, `${name}.new`), join(directory, name));
    },
    problemOf: (name, pattern) =>
      until(`${name}: ${pattern}`, () => pattern.test(state(name)?.problem ?? '') || undefined, {
        timeoutMs: 60_000,
      }),
    inForce: (revisions) =>
      until(
        JSON.stringify(revisions),
        () =>
          Object.entries(revisions).every(([name, revision]) => state(name)?.revision === revision) ||
          undefined,
        { timeoutMs: 60_000 },
      ),
    start() {
      run = engine.run(stop.signal);
    },
  };
}

/** The lab's policies without data. */
function policies(revision: string, roots: readonly string[] = ['lab']): Promise<Buffer> {
  return labBundle({ '.manifest': JSON.stringify({ revision, roots }), 'data.json': undefined });
}

function data(revision: string, document: unknown, roots: readonly string[] = ['users']): Buffer {
  return bundleOf({ '.manifest': { revision, roots }, 'data.json': document });
}

function delta(
  revision: string,
  operations: readonly unknown[],
  roots: readonly string[] = ['users'],
): Buffer {
  return bundleOf({ '.manifest': { revision, roots }, 'patch.json': { data: operations } });
}

function bundleOf(files: Readonly<Record<string, unknown>>): Buffer {
  return packBundle(
    new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(JSON.stringify(content))])),
  );
}

/** What data.users is, and by which bundles. */
async function users(engine: WasmEngine): Promise<unknown> {
  const answer = await engine.evaluate('lab/all_data', {}, forever);
  assert.equal(answer.kind, 'result', JSON.stringify(answer));
  const { bundles = {}, ...rest } = answer;
  const revisions = Object.entries(bundles).map(([name, { revision }]) => `${name} ${revision}`);
  return { users: 'value' in rest ? rest.value : undefined, by: revisions };
}

test('bundles are in force once each has a version, with the data of all', async (t) => {
  const { engine, put, start, inForce, counts } = await setUp(t, ['authz', 'teams']);
  start();
  await put('authz', await policies('p1'));
  await until('the first one to wait', () => engine.bundles()[0]?.problem === undefined || undefined);
  assert.equal(engine.ready(), false);
  assert.match(engine.problem() ?? '', /^bundle teams: /);
  const early = await engine.evaluate('lab/all_data', {}, forever);
  assert.equal(early.kind === 'failure' && early.reason, 'engine_unavailable');

  await put('teams', data('d1', { users: ['alice'] }));
  await inForce({ authz: 'p1', teams: 'd1' });
  assert.equal(engine.problem(), undefined);
  assert.deepEqual(await users(engine), { users: ['alice'], by: ['authz p1', 'teams d1'] });
  const before = engine.revision();

  await put('teams', data('d2', { users: ['bob'] }));
  await inForce({ authz: 'p1', teams: 'd2' });
  assert.deepEqual(await users(engine), { users: ['bob'], by: ['authz p1', 'teams d2'] });
  assert.notEqual(engine.revision(), before);
  assert.equal(counts['authz activated'], 1);
  assert.equal(counts['teams activated'], 2);
});

test('a bad version of one bundle is refused by its name, and the set stays', async (t) => {
  const { engine, put, start, inForce, problemOf, counts } = await setUp(t, ['authz', 'teams']);
  await put('authz', await policies('p1'));
  await put('teams', data('d1', { users: ['alice'] }));
  start();
  await inForce({ authz: 'p1', teams: 'd1' });
  const revision = engine.revision();

  await put('teams', Buffer.from('broken'));
  await problemOf('teams', /not a gzip file/);
  await put('teams', data('d2', { users: ['bob'], lab: 1 }));
  await problemOf('teams', /data at "\/lab" is outside the roots of the bundle: "\/users"/);
  await put('authz', await policies('p2', ['other']));
  await problemOf('authz', /entry point "\/lab\/[a-z_]+" of policy\.wasm is outside the roots/);
  await put('authz', await policies('p3', ['lab', 'users']));
  await problemOf('authz', /root "\/users" of bundle teams and root "\/users" of bundle authz overlap/);

  assert.equal(engine.revision(), revision);
  assert.deepEqual(await users(engine), { users: ['alice'], by: ['authz p1', 'teams d1'] });
  assert.match(engine.problem() ?? '', /^bundle authz: .*; bundle teams: /);
  assert.equal(counts['teams refused'], 2);
  assert.equal(counts['authz refused'], 2);

  await put('teams', data('d1', { users: ['alice'] }));
  await until('the old version', () => engine.bundles()[1]?.problem === undefined || undefined);
  assert.equal(engine.revision(), revision);
});

test('a root may move from one bundle to another, whichever comes first', async (t) => {
  const { engine, put, start, inForce, problemOf } = await setUp(t, ['authz', 'teams']);
  await put('authz', await policies('p1'));
  await put('teams', data('d1', { users: ['alice'], more: 1 }, ['users', 'more']));
  start();
  await inForce({ authz: 'p1', teams: 'd1' });

  const manifest = JSON.stringify({ revision: 'p2', roots: ['lab', 'users'] });
  await put('authz', await labBundle({ '.manifest': manifest, 'data.json': '{"users":["carol"]}' }));
  await problemOf('authz', /overlap/);
  assert.deepEqual(await users(engine), { users: ['alice'], by: ['authz p1', 'teams d1'] });
  await put('teams', data('d2', { more: 2 }, ['more']));
  await inForce({ authz: 'p2', teams: 'd2' });
  assert.deepEqual(await users(engine), { users: ['carol'], by: ['authz p2', 'teams d2'] });
  assert.equal(engine.problem(), undefined);
});

test('a set without any policy is refused', async (t) => {
  const { engine, put, start, problemOf } = await setUp(t, ['a', 'b']);
  await put('a', data('d1', { users: [] }));
  await put('b', data('d2', { more: [] }, ['more']));
  start();
  await until('a refusal', () => /no policy\.wasm/.test(engine.problem() ?? '') || undefined);
  assert.equal(engine.ready(), false);
  await put('b', data('d2', { users: [] }));
  await problemOf('b', /overlap/);
});

test('a delta changes the data of its bundle, and a bad one changes nothing', async (t) => {
  const { engine, put, start, inForce, problemOf } = await setUp(t, ['authz', 'teams']);
  await put('authz', await policies('p1'));
  await put('teams', delta('x', [{ op: 'upsert', path: '/users', value: [] }]));
  start();
  await problemOf('teams', /delta bundle comes before any snapshot/);
  await put('teams', data('d1', { users: ['alice'] }));
  await inForce({ teams: 'd1' });

  await put('teams', delta('d2', [{ op: 'upsert', path: '/users/-', value: 'bob' }]));
  await inForce({ authz: 'p1', teams: 'd2' });
  assert.deepEqual(await users(engine), { users: ['alice', 'bob'], by: ['authz p1', 'teams d2'] });
  const before = engine.revision();
  await put('teams', delta('d2', [{ op: 'upsert', path: '/users/-', value: 'bob' }]));
  const bad: readonly (readonly [Buffer, RegExp])[] = [
    [
      delta('d3', [
        { op: 'remove', path: '/users/0' },
        { op: 'remove', path: '/users/7' },
      ]),
      /remove of "\/users\/7" .* finds no such item/,
    ],
    [delta('d3', [{ op: 'upsert', path: '/lab/x', value: 1 }]), /upsert of "\/lab\/x" .* outside the roots/],
    [
      delta('d3', [{ op: 'upsert', path: '/users', value: 1 }], ['users', 'x']),
      /roots of the delta are not those/,
    ],
    [
      bundleOf({
        '.manifest': { roots: ['users'] },
        'patch.json': { data: [{ op: 'remove', path: '/users' }] },
        'data.json': {},
      }),
      /"data\.json" beside/,
    ],
  ];
  for (const [version, message] of bad) {
    await put('teams', version);
    await problemOf('teams', message);
    assert.deepEqual(await users(engine), { users: ['alice', 'bob'], by: ['authz p1', 'teams d2'] });
    assert.equal(engine.revision(), before);
  }
  await put('teams', delta('d4', [{ op: 'replace', path: 'users/0', value: 'carol' }]));
  await inForce({ teams: 'd4' });
  assert.deepEqual(await users(engine), { users: ['carol', 'bob'], by: ['authz p1', 'teams d4'] });
});

test('an evaluation is answered by the set that it began under, and says so', async (t) => {
  const { engine, put, start, inForce } = await setUp(t, ['authz', 'teams']);
  await put('authz', await policies('p0'));
  await put('teams', data('d0', { users: ['0'] }));
  start();
  await inForce({ authz: 'p0', teams: 'd0' });
  const over = new AbortController();
  const seen = new Set<string>();
  const ask = async (): Promise<void> => {
    while (!over.signal.aborted) seen.add(JSON.stringify(await users(engine)));
  };
  const asking = Array.from({ length: 8 }, ask);
  for (let round = 1; round <= 3; round += 1) {
    await put('teams', data(`d${round}`, { users: [String(round)] }));
    await inForce({ teams: `d${round}` });
    await put('authz', await policies(`p${round}`));
    await inForce({ authz: `p${round}` });
  }
  await until('the last set', () => [...seen].some((one) => one.includes('authz p3')) || undefined);
  over.abort();
  await Promise.all(asking);
  for (const one of seen) {
    const { users: value, by } = JSON.parse(one) as { users: string[]; by: string[] };
    assert.equal(by[1], `teams d${value[0]}`, one);
  }
  assert.ok(seen.size >= 2);
});

test('load takes the first version of each bundle, or says which one is not there', async (t) => {
  const { engine, put } = await setUp(t, ['authz', 'teams']);
  await put('authz', await policies('p1'));
  await assert.rejects(engine.load(forever), { name: 'BundleError', bundle: 'teams', code: 'unavailable' });
  await put('teams', data('d1', { users: ['alice'] }));
  await engine.load(forever);
  assert.deepEqual(await users(engine), { users: ['alice'], by: ['authz p1', 'teams d1'] });
});
