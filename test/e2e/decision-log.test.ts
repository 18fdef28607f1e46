import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startOpa } from '../support/opa.ts';
import { tempDirectory, until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { connectCaller, http, startCaller } from './caller.ts';
import { type DecisionRecord, startDecisionService } from './decision-service.ts';
import { allowed, denied, devIdentity, entrypoint, policy } from './world.ts';

type Record = DecisionRecord;

/** A service that keeps the records. */
async function startService(t: TestContext) {
  const records: Record[] = [];
  return { ...(await startDecisionService(t, (record) => records.push(record))), records };
}

const attributes = (principal: string) => ({ source: { principal }, request: { http } });

test('a service gets every record, also those of before it was there and of the moment of the end', async (t) => {
  const { url, records, service } = await startService(t);
  service.status = 500;
  const { check, sidecar } = await startCaller(t, {}, { config: { decision_log: { service: { url } } } });
  await check(attributes(allowed));
  await check(attributes(denied));
  await until('an upload that failed', () => (service.requests > 0 ? true : undefined));
  await sidecar.process().waitForLine(/decision log service does not take records/);
  assert.ok((await sidecar.metric('svidecar_decision_uploads_failed_total')) >= 1);
  service.status = 200;
  await until('the records', () => (records.length === 2 ? true : undefined));
  assert.deepEqual(
    records.map(({ outcome, peer }) => [outcome, peer]),
    [
      ['allowed', allowed],
      ['denied', denied],
    ],
  );
  assert.equal(await sidecar.metric('svidecar_decisions_sent_total'), 2);

  for (let index = 0; index < 50; index++) await check(attributes(denied));
  await sidecar.process().stop();
  assert.equal(records.length, 52);
  assert.equal(new Set(records.map((record) => record['decision_id'])).size, 52);
});

test('with a sample of 0 only what was not allowed is recorded', async (t) => {
  const { url, records } = await startService(t);
  const config = { decision_log: { console: false, sample: 0, service: { url } } };
  const { check, sidecar } = await startCaller(t, {}, { config });
  for (const principal of [allowed, denied, allowed]) await check(attributes(principal));
  assert.equal(await sidecar.metric('svidecar_decisions_dropped_total{reason="sampled"}'), 2);
  await sidecar.process().stop();
  assert.deepEqual(
    records.map((record) => record['outcome']),
    ['denied'],
  );
});

const logPolicy = `package system.log
import rego.v1

drop if input.input.source_principal == "${allowed}"

mask contains "/input/attributes/request/http/path"

mask contains {"op": "upsert", "path": "/input/source_principal", "value": "somebody"}
`;

function assertMasked(records: readonly Record[]): void {
  assert.deepEqual(
    records.map(({ outcome, erased, masked }) => ({ outcome, erased, masked })),
    [
      {
        outcome: 'denied',
        erased: ['/input/attributes/request/http/path'],
        masked: ['/input/source_principal'],
      },
    ],
  );
  const [{ input } = {}] = records;
  assert.equal((input as Record)['source_principal'], 'somebody');
}

test('the bundle masks and drops records by system.log', async (t) => {
  const { url, records } = await startService(t);
  const { check, sidecar } = await startCaller(
    t,
    {},
    {
      files: { 'log.rego': logPolicy },
      entrypoints: [entrypoint, 'system/log/mask', 'system/log/drop'],
      config: { decision_log: { service: { url } } },
    },
  );
  for (const principal of [allowed, denied]) await check(attributes(principal));
  await until('the drop', async () =>
    (await sidecar.metric('svidecar_decisions_dropped_total{reason="policy"}')) === 1 ? true : undefined,
  );
  // Also for the last records the engine is there.
  await sidecar.process().stop();
  assertMasked(records);
});

test('an OPA masks and drops records by system.log; while it is away they go without documents', async (t) => {
  const { url, records } = await startService(t);
  const opa = await startOpa(t, { over: 'tcp', files: { 'policy.rego': policy, 'log.rego': logPolicy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint },
      policy: { opa: { url: opa.url }, timeout: '2s' },
      decision_log: { service: { url } },
    },
  });
  const { check } = connectCaller(t, sidecar);
  for (const principal of [allowed, denied]) await check(attributes(principal));
  await until('the record', () => (records.length > 0 ? true : undefined));
  assertMasked(records);

  await opa.process.stop();
  await check(attributes(allowed));
  await until('the failure', () => (records.length > 1 ? true : undefined));
  assert.equal(records[1]?.['reason_code'], 'engine_unavailable');
  assert.equal('input' in (records[1] ?? {}), false);
  assert.equal(await sidecar.metric('svidecar_decisions_withheld_total'), 1);
});

test("records name the revisions of an OPA's bundles, and OPA's own id of the decision when it logs itself", async (t) => {
  const { url, records } = await startService(t);
  const directory = await tempDirectory(t);
  await mkdir(join(directory, 'authz'));
  await writeFile(join(directory, 'authz', '.manifest'), '{"revision": "authz-7", "roots": ["envoy"]}');
  await writeFile(join(directory, 'authz', 'policy.rego'), policy);
  const bundle = join(directory, 'authz');
  const opa = await startOpa(t, {
    over: 'unix',
    files: {},
    args: ['--set', 'decision_logs.console=true', '--bundle', bundle],
  });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint },
      policy: { opa: { url: opa.url }, timeout: '2s' },
      decision_log: { service: { url } },
    },
  });
  await connectCaller(t, sidecar).check(attributes(denied));
  await until('the record', () => (records.length > 0 ? true : undefined));
  const [record = {}] = records;
  assert.deepEqual(record['bundles'], { [bundle]: { revision: 'authz-7' } });
  const { engine_decision_id: id } = record['custom'] as { engine_decision_id: string };
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.notEqual(record['decision_id'], id);

  // Their consoles differ in what was decided, and a record that goes to a service has none of what marks a line.
  const [ours, theirs] = await Promise.all(
    [sidecar.process(), opa.process].map(async (process) =>
      JSON.parse(await process.waitForLine(/"decision_id"/)),
    ),
  );
  const marks = ({ type, level, msg }: Record) => ({ type, level, msg });
  assert.deepEqual(marks(ours), marks(theirs));
  assert.equal(ours.type, 'openpolicyagent.org/decision_logs');
  assert.equal('type' in record, false);
});
