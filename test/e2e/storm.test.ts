import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createGrpcClient, type GrpcClient } from '../../src/grpc/client.ts';
import { Status, StatusError } from '../../src/grpc/status.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { AbortedError } from '../../src/runtime/errors.ts';
import { encodeCertificatesPem } from '../../src/spiffe/certificate.ts';
import { packBundle, unpackBundle } from '../support/bundles.ts';
import { createTestAuthority } from '../support/ca.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { type Cost, createProbe, type Probe } from '../support/probe.ts';
import { tempDirectory, until } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { type DecisionRecord, startDecisionService } from './decision-service.ts';
import { startPublisher } from './published.ts';
import * as oracle from './storm-oracle.ts';
import { createTimeline, type Timeline } from './storm-timeline.ts';
import { server, trustDomain } from './world.ts';

const checksPerRound = 10_000;
const rounds = 5;
const inFlight = 256;
const never = new AbortController().signal;
const hourMs = 3_600_000;

/** Everything that changes while Checks are under way. */
type Weather = Readonly<{
  policy: Timeline<oracle.PolicyVersion>;
  trust: Timeline<oracle.Trust>;
  denied: Timeline<ReadonlySet<string>>;
  /** Changes all of it, over and over, until the signal fires. */
  turn(signal: AbortSignal): Promise<void>;
}>;

type Told = Readonly<{ outcome: unknown; reason: unknown; revision: unknown; version: unknown }>;

test('50 000 mixed Checks while policy, data, trust, deny list and SVID change: each is answered as the policy that it names prescribes, each is recorded, and nothing is left behind', {
  timeout: 600_000,
}, async (t) => {
  const records = new Map<string, Told>();
  const { url } = await startDecisionService(t, (record) => {
    const id = record['decision_id'] as string;
    assert.ok(!records.has(id), `two records of ${id}`);
    records.set(id, toldBy(record));
  });
  const probe = await createProbe(t);
  const { sidecar, weather, certificates } = await startWorld(t, probe, url);
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
  assertNothingLeft(costs);
  for (const [what, { states }] of Object.entries({
    policy: weather.policy,
    trust: weather.trust,
    denied: weather.denied,
  }))
    assert.ok(states.length > 8, `${what} changed only ${states.length - 1} times`);
  const seen = new Set(calls.answers.map(({ version }) => version));
  t.diagnostic(
    JSON.stringify({
      ...calls.kinds(),
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
});

/** A sidecar with engine wasm whose world the test turns by hand. */
async function startWorld(t: TestContext, probe: Probe, url: string) {
  const directory = await tempDirectory(t);
  const files = { bundle: join(directory, 'bundle.tar.gz'), denied: join(directory, 'denied') };
  const modules = await Promise.all(
    [4, 3].map(async (modulus) => {
      const into = join(directory, `built${modulus}.tar.gz`);
      const { entrypoints } = oracle;
      await buildWasmBundle(t, { files: { 'policy.rego': oracle.rego(modulus) }, entrypoints, into });
      return unpackBundle(await readFile(into));
    }),
  );
  const replace = async (path: string, content: string | Buffer): Promise<void> => {
    await writeFile(`${path}.new`, content);
    await rename(`${path}.new`, path);
  };
  const publishPolicy = async (state: oracle.PolicyVersion): Promise<void> => {
    const bundle = new Map(modules[state.version % 2]);
    bundle.set('data.json', Buffer.from(JSON.stringify({ state })));
    bundle.set('.manifest', Buffer.from(JSON.stringify({ revision: `v${state.version}`, roots: [''] })));
    await replace(files.bundle, packBundle(bundle));
  };
  const publishDenied = (denied: ReadonlySet<string>): Promise<void> =>
    replace(files.denied, ['# on the list', 'no pattern at all', ...denied].join('\n'));

  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const [first, second] = await Promise.all([
    createTestAuthority(trustDomain, times),
    createTestAuthority(trustDomain, { ...times, subject: 'CN=the second' }),
  ]);
  const svid = async (authority: typeof first, id: string) => {
    const { certificate, privateKey } = await authority.leaf({ uris: [id], ...times });
    return { ...(await authority.svid(id)), chain: [certificate] as const, privateKey };
  };
  const peers = await Promise.all(
    [...oracle.agents, oracle.revoked, oracle.turned].map((id) =>
      svid(id === oracle.turned ? second : first, id),
    ),
  );
  const certificates = new Map(
    peers.map(({ spiffeId, chain }) => [
      spiffeId as string,
      encodeURIComponent(encodeCertificatesPem(chain).toString()),
    ]),
  );
  const gone = peers.filter(({ spiffeId }) => spiffeId === oracle.revoked).map(({ chain }) => chain[0]);
  const dates = { thisUpdate: Date.now() - hourMs, nextUpdate: Date.now() + hourMs };
  const [empty, revoking] = await Promise.all([first.crl([], dates), first.crl(gone, dates)]);
  const publication = async (trust: oracle.Trust) => ({
    svids: [await svid(first, server)],
    authorities: [first.certificate, ...(trust.second ? [second.certificate] : [])],
    crls: [trust.revoking ? revoking : empty],
  });

  const policy = createTimeline(oracle.policyVersion(0));
  const trust = createTimeline<oracle.Trust>({ second: true, revoking: false });
  const denied = createTimeline<ReadonlySet<string>>(new Set());
  await publishPolicy(oracle.policyVersion(0));
  await publishDenied(new Set());
  const publisher = await startPublisher(t, await publication({ second: true, revoking: false }));
  const sidecar = await startSidecar(t, {
    ...probe.with,
    config: {
      identity: { source: 'workload_api', workload_api: { address: publisher.address } },
      ext_authz: {
        ...oracle.extAuthz,
        peer: { denied_identities_file: files.denied },
        cache: { ttl: '10m', max_entries: 500 },
      },
      policy: { engine: 'wasm', bundle: { file: files.bundle }, timeout: '20s' },
      decision_log: { console: false, service: { url } },
    },
  });
  const said = async (line: string, value: number, signal: AbortSignal): Promise<void> => {
    while ((await sidecar.metric(line)) < value) await sleep(100, signal);
  };

  async function turnPolicy(signal: AbortSignal): Promise<void> {
    const state = oracle.policyVersion(policy.states.length);
    const index = policy.begin(state);
    await publishPolicy(state);
    await sidecar
      .process()
      .waitForLine(new RegExp(`policy activated.*"v${state.version}"|"v${state.version}".*policy activated`));
    policy.settle(index);
    await sleep(300, signal);
  }
  async function turnTrust(signal: AbortSignal): Promise<void> {
    const count = trust.states.length;
    const state = { second: count % 2 === 0, revoking: count % 3 === 1 };
    const next = await publication(state);
    const index = trust.begin(state);
    publisher.publish(next);
    await said(`svidecar_svid_rotations_total{spiffe_id="${server}"}`, index, signal);
    trust.settle(index);
    await sleep(300, signal);
  }
  async function turnDenied(signal: AbortSignal): Promise<void> {
    const one = [oracle.agents[denied.states.length % 4] ?? '', oracle.plain];
    const index = denied.begin(new Set(one));
    await publishDenied(new Set(one));
    await said('svidecar_denied_identities', one.length, signal);
    denied.settle(index);
    await sleep(100, signal);
    // Let go of only after a second, less what two clocks may differ by.
    const later = denied.begin(new Set(), performance.now() + 950);
    await publishDenied(new Set());
    while ((await sidecar.metric('svidecar_denied_identities')) > 0) await sleep(100, signal);
    denied.settle(later);
  }
  const again = async (turn: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> => {
    // One that is under way ends first, so that the next round begins with what is known.
    while (!signal.aborted) await turn(never);
  };
  const weather: Weather = {
    policy,
    trust,
    denied,
    async turn(signal) {
      await Promise.all([again(turnPolicy, signal), again(turnTrust, signal), again(turnDenied, signal)]);
    },
  };
  return { sidecar, weather, certificates };
}

type Judged = oracle.Answer & Readonly<{ decisionId: string; revision: string | undefined }>;

/** Makes Checks, 256 at a time, and judges each answer at the moment that it comes. */
function createCalls(client: GrpcClient, weather: Weather, requestAt: (index: number) => oracle.Request) {
  const answers: Judged[] = [];
  const wrong: string[] = [];
  const ended = { cancelled: 0, late: 0, hurried: 0 };
  const reasons = new Map<string, number>();
  let next = 0;

  async function call(index: number): Promise<void> {
    const request = requestAt(index);
    const { cancelAfterMs, timeoutMs } = patience(index);
    const cancel = new AbortController();
    const sentAt = performance.now();
    const answering = client.unary('/envoy.service.auth.v3.Authorization/Check', request.bytes, {
      signal: cancel.signal,
      timeoutMs,
    });
    const timer = cancelAfterMs === undefined ? undefined : setTimeout(() => cancel.abort(), cancelAfterMs);
    try {
      const answer = oracle.readAnswer(await answering);
      const problem = judge(request, answer, sentAt, performance.now(), timeoutMs < patient);
      if (problem !== undefined) wrong.push(`Check ${index}: ${problem}`);
    } catch (error) {
      const late = error instanceof StatusError && error.status === Status.DEADLINE_EXCEEDED;
      if (error instanceof AbortedError && cancel.signal.aborted) ended.cancelled += 1;
      else if (late && timeoutMs < patient) ended.late += 1;
      else wrong.push(`Check ${index}: ${String(error)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  function judge(
    request: oracle.Request,
    answer: oracle.Answer,
    sentAt: number,
    receivedAt: number,
    hurried: boolean,
  ): string | undefined {
    const { decisionId, version } = answer;
    if (decisionId === undefined) return `no decision ID in ${JSON.stringify(answer)}`;
    const revision = version === undefined ? undefined : `v${version}`;
    answers.push({ ...answer, decisionId, revision });
    reasons.set(String(answer.reason), (reasons.get(String(answer.reason)) ?? 0) + 1);
    if (hurried && answer.http === 'Forbidden' && outOfTime.has(String(answer.reason))) {
      ended.hurried += 1;
      return undefined;
    }
    const policies = weather.policy.between(sentAt, receivedAt);
    const policy = policies.find((one) => one.version === version);
    const shown = JSON.stringify(answer);
    if (version !== undefined && policy === undefined) {
      return `${shown}, but in force were only ${policies.map((one) => one.version).join()}`;
    }
    // From now on nobody may be answered by an older one.
    if (policy !== undefined) weather.policy.settle(policy.version);
    const worlds = weather.trust
      .between(sentAt, receivedAt)
      .flatMap((trust) => weather.denied.between(sentAt, receivedAt).map((denied) => ({ trust, denied })));
    const all = worlds.map((world) => oracle.prescribed(request, world, policy));
    const fits = all.some(
      ({ http, reason, asked }) =>
        http === answer.http && reason === answer.reason && asked === (policy !== undefined),
    );
    if (!fits) return `${shown}, but prescribed is ${JSON.stringify(all)}`;
    if (policy === undefined) return undefined;
    const same = answer.n === request.n && answer.peer === request.peer && answer.modulus === policy.modulus;
    return same ? undefined : `${shown} is the answer to another request than ${request.peer} ${request.n}`;
  }

  return {
    answers,
    wrong,
    async make(count: number): Promise<void> {
      const end = next + count;
      const one = async (): Promise<void> => {
        while (next < end) await call(next++);
      };
      await Promise.all(Array.from({ length: inFlight }, one));
    },
    /** Those that came to an end in one way or the other. */
    total: () => answers.length + ended.cancelled + ended.late,
    ended,
    kinds: () => ({ ...ended, ...Object.fromEntries(reasons) }),
  };
}

const patient = 60_000;
const outOfTime: ReadonlySet<string> = new Set(['engine_timeout', 'token_unavailable']);

/** Every hundredth caller or so goes away early, and some are in a hurry. */
function patience(index: number): Readonly<{ cancelAfterMs?: number; timeoutMs: number }> {
  if (index % 97 === 5) return { cancelAfterMs: index % 6, timeoutMs: patient };
  return { timeoutMs: index % 53 === 7 ? 1 + (index % 40) : patient };
}

function toldBy(record: DecisionRecord): Told {
  const { bundles, result } = record as { bundles?: { policy?: { revision?: unknown } }; result?: unknown };
  const said = (result as { dynamic_metadata?: { version?: unknown } } | undefined)?.dynamic_metadata;
  return {
    outcome: record['outcome'],
    reason: record['reason_code'],
    revision: bundles?.policy?.revision,
    version: said?.version,
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
      const { http, reason, revision, version } = answer;
      const outcome = http === 'OK' ? 'allowed' : told.outcome;
      assert.deepEqual(told, { outcome, reason, revision: told.revision, version });
      assert.equal(http === 'OK', told.outcome === 'allowed');
      if (revision !== undefined) assert.equal(told.revision, revision);
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

/** The first round is to get warm; after that nothing may be more than what the allocator makes of it. */
function assertNothingLeft(costs: readonly Cost[]): void {
  const [, warm, ...later] = costs;
  const last = later.at(-1);
  assert.ok(warm !== undefined && last !== undefined);
  assert.equal(last.threads, warm.threads, 'threads');
  assert.ok(last.fds <= warm.fds + 2, `${warm.fds} file descriptors became ${last.fds}`);
  const checks = later.length * checksPerRound;
  const heap = (last.memory.heapUsed - warm.memory.heapUsed) / checks;
  const outside =
    (last.memory.external + last.memory.arrayBuffers - warm.memory.external - warm.memory.arrayBuffers) /
    checks;
  assert.ok(heap < 100, `${heap.toFixed(0)} bytes of heap stay from each Check`);
  assert.ok(outside < 100, `${outside.toFixed(0)} bytes outside the heap stay from each Check`);
}
