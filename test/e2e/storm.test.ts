import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createGrpcClient } from '../../src/grpc/client.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { packBundle, unpackBundle } from '../support/bundles.ts';
import { http } from '../support/http.ts';
import { buildWasmBundle, startOpa } from '../support/opa.ts';
import { type Cost, createProbe, type Probe } from '../support/probe.ts';
import { tempDirectory, until } from '../support/process.ts';
import type { Sidecar } from '../support/sidecar.ts';
import { type DecisionRecord, startDecisionService } from './decision-service.ts';
import { createCalls, inFlight } from './storm-calls.ts';
import * as oracle from './storm-oracle.ts';
import { type PublishedPolicy, replaceFile, startWorld } from './storm-world.ts';

const rounds = 5;
const never = new AbortController().signal;

/** What a record says of the decision. */
type Told = Readonly<{
  outcome: unknown;
  reason: unknown;
  bundles: unknown;
  version: unknown;
  modulus: unknown;
}>;

test(
  '50 000 mixed Checks while policy, data, trust, deny list and SVID change: each is answered as the policy that it names prescribes, each is recorded, and nothing is left behind',
  {
    timeout: 600_000,
  },
  (t) => storm(t, publishToWasm, { checksPerRound: 10_000, spareFds: 2 }),
);

test('the same with an OPA server whose policy is replaced', { timeout: 300_000 }, (t) =>
  storm(t, publishToOpa, { checksPerRound: 1_000, spareFds: inFlight }),
);

type Publish = (t: TestContext) => Promise<PublishedPolicy>;

/** How large a storm is, and how many connections to an engine it may leave open. */
type Size = Readonly<{ checksPerRound: number; spareFds: number }>;

async function storm(t: TestContext, publish: Publish, { checksPerRound, spareFds }: Size): Promise<void> {
  const records = new Map<string, Told>();
  const { url } = await startDecisionService(t, (record) => {
    const id = record['decision_id'] as string;
    assert.ok(!records.has(id), `two records of ${id}`);
    records.set(id, toldBy(record));
  });
  const probe = await createProbe(t);
  const engine = await publish(t);
  const { sidecar, weather, certificates } = await startWorld(t, { engine, probe, url });
  const client = createGrpcClient({
    target: { kind: 'unix', path: sidecar.socket },
    maxMessageBytes: 1 << 20,
  });
  t.after(() => client.close());

  const calls = createCalls(client, weather, oracle.createRequests(certificates));
  const costs: Cost[] = [];
  for (let round = 0; round < rounds; round++) {
    const calm = new AbortController();
    await Promise.all([calls.make(checksPerRound).finally(() => calm.abort()), weather.turn(calm.signal)]);
    await until('every record to be sent', async () => {
      const { answered, recorded } = await counted(sidecar);
      return answered === recorded ? true : undefined;
    });
    costs.push(await settledCost(probe));
  }

  assert.deepEqual(calls.wrong.slice(0, 5), [], `${calls.wrong.length} wrong answers`);
  assert.equal(calls.total(), rounds * checksPerRound);
  const names = calls.answers.map(({ decisionId }) => decisionId);
  assert.equal(new Set(names).size, names.length, 'decision IDs are used once');
  await compareRecords(sidecar, calls, records);
  assertNothingLeft(costs, spareFds);
  for (const [what, { states }] of Object.entries({
    policy: weather.policy,
    trust: weather.trust,
    denied: weather.denied,
  }))
    assert.ok(states.length > 3, `${what} changed only ${states.length - 1} times`);
  const seen = new Set(calls.answers.map(({ version }) => version));
  t.diagnostic(
    JSON.stringify({
      ...calls.kinds(),
      cached: await sidecar.metric('svidecar_decision_cache_total{outcome="hit"}'),
      policies: weather.policy.states.length,
      policiesSeen: seen.size - 1,
      trust: weather.trust.states.length,
      denied: weather.denied.states.length,
      heapMiB: costs.map(({ memory }) => +(memory.heapUsed / 2 ** 20).toFixed(2)),
      outsideMiB: costs.map(({ memory }) => +((memory.external + memory.arrayBuffers) / 2 ** 20).toFixed(2)),
      rssMiB: costs.map(({ memory }) => Math.round(memory.rss / 2 ** 20)),
      threads: costs.map(({ threads }) => threads),
      fds: costs.map(({ fds }) => fds),
    }),
  );
}

/** Two bundles, one of the policy and one of its data. */
async function publishToWasm(t: TestContext): Promise<PublishedPolicy> {
  const directory = await tempDirectory(t);
  const files = { policy: join(directory, 'policy.tar.gz'), data: join(directory, 'data.tar.gz') };
  const modules = await Promise.all(
    [4, 3].map(async (modulus) => {
      const into = join(directory, `built${modulus}.tar.gz`);
      const { entrypoints } = oracle;
      await buildWasmBundle(t, { files: { 'policy.rego': oracle.rego(modulus) }, entrypoints, into });
      return unpackBundle(await readFile(into));
    }),
  );
  const writePolicy = async (state: oracle.PolicyVersion): Promise<void> => {
    const bundle = new Map(modules[state.modules % 2]);
    const manifest = JSON.parse(bundle.get('.manifest')?.toString() ?? '{}') as object;
    const { revision } = bundlesOf(state).policy;
    bundle.delete('data.json');
    bundle.set('.manifest', Buffer.from(JSON.stringify({ ...manifest, revision, roots: ['storm'] })));
    await replaceFile(files.policy, packBundle(bundle));
  };
  const writeData = async (state: oracle.PolicyVersion): Promise<void> => {
    const { revision } = bundlesOf(state).data;
    const manifest = Buffer.from(JSON.stringify({ revision, roots: ['state'] }));
    const data = Buffer.from(JSON.stringify({ state }));
    await replaceFile(
      files.data,
      packBundle(
        new Map([
          ['.manifest', manifest],
          ['data.json', data],
        ]),
      ),
    );
  };
  await writePolicy(oracle.policyVersion(0));
  await writeData(oracle.policyVersion(0));
  return {
    config: {
      engine: 'wasm',
      bundle: [
        { name: 'policy', file: files.policy },
        { name: 'data', file: files.data },
      ],
    },
    extAuthz: { cache: { ttl: '10m', max_entries: 500 } },
    async publish(state, sidecar) {
      await (state.step % 2 === 0 ? writePolicy(state) : writeData(state));
      const { policy, data } = bundlesOf(state);
      const line = new RegExp(
        `"${policy.revision}".*"${data.revision}".*policy activated|policy activated.*"${policy.revision}".*"${data.revision}"`,
      );
      await sidecar.process().waitForLine(line, { timeoutMs: 60_000 });
    },
  };
}

function bundlesOf({ modules, version }: oracle.PolicyVersion) {
  return { policy: { revision: `p${modules}` }, data: { revision: `d${version}` } };
}

/** A module, with its data in it, is replaced by one PUT, and in force for every query after that. */
async function publishToOpa(t: TestContext): Promise<PublishedPolicy> {
  const module = (state: oracle.PolicyVersion): string => oracle.rego(state.modulus, JSON.stringify(state));
  const { url } = await startOpa(t, { over: 'tcp', files: {} });
  const publish = async (state: oracle.PolicyVersion): Promise<void> => {
    const { status, body } = await http({
      port: Number(new URL(url).port),
      path: '/v1/policies/storm',
      method: 'PUT',
      body: module(state),
    });
    assert.equal(status, 200, body);
  };
  await publish(oracle.policyVersion(0));
  return { config: { engine: 'opa', opa: { url } }, extAuthz: {}, publish };
}

function toldBy(record: DecisionRecord): Told {
  const { result } = record as { result?: { dynamic_metadata?: { version?: unknown; modulus?: unknown } } };
  const { version, modulus } = result?.dynamic_metadata ?? {};
  return {
    outcome: record['outcome'],
    reason: record['reason_code'],
    bundles: record['bundles'],
    version,
    modulus,
  };
}

/** Checks answered, and those of them with a record that was sent or counted as dropped. */
async function counted(sidecar: Sidecar): Promise<{ answered: number; recorded: number; dropped: number }> {
  const { body } = await sidecar.admin('/metrics');
  const sum = (name: string): number =>
    body
      .split('\n')
      .filter((line) => line.startsWith(name))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0);
  const dropped = sum('svidecar_decisions_dropped_total');
  return {
    answered: sum('svidecar_checks_total'),
    recorded: sum('svidecar_decisions_sent_total') + dropped,
    dropped,
  };
}

/** Each answer has the record that says the same; what more there is, is of callers who did not wait. */
async function compareRecords(
  sidecar: Sidecar,
  { answers, ended }: ReturnType<typeof createCalls>,
  records: ReadonlyMap<string, Told>,
): Promise<void> {
  const { answered, dropped } = await counted(sidecar);
  assert.equal(records.size + dropped, answered);
  const unheard = answered - answers.length;
  assert.ok(unheard >= 0 && unheard <= ended.cancelled + ended.late, `${unheard} answers nobody heard`);
  let missing = 0;
  for (const answer of answers) {
    const told = records.get(answer.decisionId);
    if (told === undefined) missing += 1;
    else {
      const { http, reason, version, modulus, policy } = answer;
      const { outcome, bundles, ...rest } = told;
      assert.deepEqual(rest, { reason, version, modulus });
      assert.equal(outcome === 'allowed', http === 'OK');
      if (policy !== undefined && bundles !== undefined) assert.deepEqual(bundles, bundlesOf(policy));
    }
  }
  assert.ok(missing <= dropped, `${missing} answers without a record, ${dropped} dropped`);
}

/** The cost of the process with nothing under way: the workers of a policy that is no more take a moment to end. */
async function settledCost(probe: Probe): Promise<Cost> {
  let before = await probe.look('settled');
  return until('threads and connections to come to rest', async () => {
    await sleep(200, never);
    const now = await probe.look('settled');
    const same = now.threads === before.threads && now.fds === before.fds;
    before = now;
    return same ? now : undefined;
  });
}

/** The first round is to get warm; of the thousands of Checks after the second, next to nothing may be left. */
function assertNothingLeft(costs: readonly Cost[], spareFds: number): void {
  const [, warm, ...later] = costs;
  const last = later.at(-1);
  assert.ok(warm !== undefined && last !== undefined);
  assert.equal(last.threads, warm.threads, 'threads');
  assert.ok(last.fds <= warm.fds + spareFds, `${warm.fds} file descriptors became ${last.fds}`);
  const spare = 4 * mebibyte + spareFds * connectionBytes;
  for (const part of ['heapUsed', 'external', 'arrayBuffers'] as const) {
    const grown = last.memory[part] - warm.memory[part];
    assert.ok(grown < spare, `${part} has grown by ${grown} bytes`);
  }
}

const mebibyte = 1 << 20;
/** What an open connection may hold. */
const connectionBytes = 64 * 1024;
