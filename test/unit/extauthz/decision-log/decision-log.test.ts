import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import {
  createDecisionLog,
  type DecisionEvent,
  decisionEvent,
} from '../../../../src/extauthz/decision-log/decision-log.ts';
import { createRedactor } from '../../../../src/extauthz/decision-log/redaction.ts';
import type { PolicyEngine } from '../../../../src/policy/policy-engine.ts';
import {
  answering,
  checkOnce,
  createTrust,
  failing,
  functionEngine,
  getRequest,
  type Trust,
  web,
} from '../harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

const options = {
  redact: createRedactor([]),
  labels: { id: 'sidecar-1' },
  engine: 'wasm',
  random: () => 0.5,
};

test('the record of an allow has the members of an OPA decision log event', async () => {
  const engine = functionEngine(() => ({
    kind: 'result',
    value: { allowed: true },
    bundles: { authz: { revision: 'r7' } },
  }));
  const trace = await checkOnce(trust, { engine }, getRequest());
  const { metrics, input, ...rest } = decisionEvent(trace, options);
  assert.deepEqual(rest, {
    labels: { id: 'sidecar-1' },
    decision_id: trace.decisionId,
    bundles: { authz: { revision: 'r7' } },
    path: 'envoy/authz/allow',
    result: { allowed: true },
    outcome: 'allowed',
    peer: web,
    timestamp: '2026-06-01T12:00:00.000Z',
  });
  assert.equal((input as Record<string, unknown>)['source_principal'], web);
  const { timer_server_handler_ns: total, timer_rego_query_eval_ns: evaluation } = metrics as Record<
    string,
    number
  >;
  assert.ok(Number.isInteger(total) && Number.isInteger(evaluation));
  assert.ok((total ?? 0) >= (evaluation ?? 0));
});

test("an OPA's own id of the decision and the revisions of its bundles are in the record, undefined ones too", async () => {
  const revisions = { authz: { revision: 'r1' }, data: { revision: '' } };
  const told = { bundles: revisions, engineDecisionId: 'theirs' };
  for (const evaluation of [
    { kind: 'result', value: true, ...told },
    { kind: 'undefined', ...told },
  ] as const) {
    const trace = await checkOnce(trust, { engine: functionEngine(() => evaluation) }, getRequest());
    const { bundles, custom, decision_id: id } = decisionEvent(trace, options);
    assert.deepEqual(bundles, revisions);
    assert.deepEqual(custom, { engine_decision_id: 'theirs' });
    assert.equal(id, trace.decisionId);
  }
});

test('the record of a denial has reason and code, and no error', async () => {
  const trace = await checkOnce(trust, { engine: answering({ allow: false, reason: 'late' }) }, getRequest());
  const event = decisionEvent(trace, options);
  assert.equal(event['reason'], 'late');
  assert.equal(event['reason_code'], 'policy_denied');
  assert.equal('error' in event, false);
});

test('the record of a failure has the error and no result', async () => {
  const trace = await checkOnce(trust, { engine: failing('engine_error') }, getRequest());
  const event = decisionEvent(trace, options);
  assert.deepEqual(event['error'], { code: 'engine_error', message: 'made to fail: engine_error' });
  assert.equal('result' in event, false);
  assert.equal('input' in event, true);
});

test('dry-run is recorded with the real decision', async () => {
  const trace = await checkOnce(trust, { engine: answering(false), dryRun: true }, getRequest());
  const event = decisionEvent(trace, options);
  assert.equal(event['outcome'], 'lifted');
  assert.equal(event['reason_code'], 'policy_denied');
  assert.equal(event['result'], false);
});

test('a refusal before the policy is recorded with what was asked and no more', async () => {
  const trace = await checkOnce(
    trust,
    {},
    getRequest({ principal: '', path: '/v1/a?token=s3cret', body: 'b' }),
  );
  const event = decisionEvent(trace, options);
  const http = { method: 'GET', host: 'api.example.org', path: '/v1/a' };
  assert.equal(JSON.stringify(event['input']), JSON.stringify({ attributes: { request: { http } } }));
  const masking = { ...options, redact: createRedactor(['/input/attributes/request/http/path']) };
  assert.ok(!JSON.stringify(decisionEvent(trace, masking)).includes('/v1/a'));
  assert.equal(event['reason_code'], 'no_peer_identity');
  assert.deepEqual(event['error'], { code: 'no_peer_identity', message: 'the peer has no SPIFFE ID' });
});

test('erased pointers are listed', async () => {
  const trace = await checkOnce(trust, {}, getRequest({ headers: { authorization: 'Bearer x' } }));
  assert.deepEqual(decisionEvent(trace, options)['erased'], [
    '/input/attributes/request/http/headers/authorization',
  ]);
});

test('the record names the trace that the request belongs to', async () => {
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  const trace = await checkOnce(trust, {}, getRequest({ headers: { traceparent } }));
  const event = decisionEvent(trace, options);
  assert.equal(event['trace_id'], '4bf92f3577b34da6a3ce929d0e0e4736');
  assert.equal(event['span_id'], '00f067aa0ba902b7');
  const callTrace = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), sampled: false };
  assert.equal(decisionEvent({ ...trace, callTrace }, options)['trace_id'], callTrace.traceId);
});

async function logOf(limits: { maxQueued?: number; maxQueuedBytes?: number; sample?: number }) {
  const events: DecisionEvent[] = [];
  let dropped = 0;
  const log = createDecisionLog({
    ...options,
    ...limits,
    sink: (event) => events.push(event),
    meter: { decisionDropped: () => (dropped += 1) },
  });
  const trace = await checkOnce(trust, {}, getRequest());
  return { log, events, trace, dropped: () => dropped };
}

test('records are written off the path of the Check, in order, and the rest when it stops', async () => {
  const { log, events, trace } = await logOf({});
  for (let i = 0; i < 150; i++) log.record({ ...trace, decisionId: String(i) });
  assert.equal(events.length, 0);
  const stop = new AbortController();
  const running = log.run(stop.signal);
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  assert.ok(events.length > 0);
  log.record({ ...trace, decisionId: '150' });
  stop.abort();
  await running;
  assert.deepEqual(
    events.map((event) => event['decision_id']),
    Array.from({ length: 151 }, (_, i) => String(i)),
  );
});

test('a record wakes a log that has nothing to do', async () => {
  const { events, trace } = await logOf({});
  const written = Promise.withResolvers<void>();
  const stop = new AbortController();
  const waking = createDecisionLog({
    ...options,
    sink: (event) => {
      events.push(event);
      written.resolve();
    },
    meter: { decisionDropped() {} },
  });
  const running = waking.run(stop.signal);
  await new Promise((resolve) => setImmediate(resolve));
  waking.record(trace);
  await written.promise;
  assert.equal(events.length, 1);
  stop.abort();
  await running;
});

test('a full queue drops and counts, by number and by size', async () => {
  const few = await logOf({ maxQueued: 2 });
  for (let i = 0; i < 5; i++) few.log.record(few.trace);
  assert.equal(few.dropped(), 3);

  const small = await logOf({ maxQueuedBytes: 20_000 });
  const big = await checkOnce(trust, {}, getRequest({ body: 'x'.repeat(6_000) }));
  small.log.record(big);
  assert.equal(small.dropped(), 1);
  small.log.record(small.trace);
  assert.equal(small.dropped(), 1);
  const engine = answering({ allowed: true, dynamic_metadata: { echo: ['x'.repeat(20_000)] } });
  small.log.record(await checkOnce(trust, { engine }, getRequest()));
  assert.equal(small.dropped(), 2);
});

test('a result too deep to be walked costs its record the documents, and the log goes on', async () => {
  const { log, events } = await logOf({});
  const deep = JSON.parse(`{"allowed":false,"claims":${'['.repeat(50_000)}${']'.repeat(50_000)}}`) as unknown;
  const engine: PolicyEngine = {
    ...answering(false),
    evaluate: async () => ({ kind: 'result', value: deep }),
  };
  const trace = await checkOnce(trust, { engine }, getRequest());
  log.record(trace);
  log.record(await checkOnce(trust, {}, getRequest()));
  await log.run(AbortSignal.abort());
  assert.deepEqual(
    events.map((event) => [event['outcome'], 'input' in event, 'result' in event, event['erased']]),
    [
      ['denied', false, false, ['/input', '/result']],
      ['allowed', true, true, undefined],
    ],
  );
  assert.equal(events[0]?.['decision_id'], trace.decisionId);
  assert.equal(events[0]?.['path'], 'envoy/authz/allow');
});

test('a sink that stands still holds the records back, and those beyond the bounds are dropped', async () => {
  const { trace } = await logOf({});
  const events: DecisionEvent[] = [];
  const backlog = Promise.withResolvers<void>();
  const full = Promise.withResolvers<void>();
  const done = Promise.withResolvers<void>();
  let dropped = 0;
  const log = createDecisionLog({
    ...options,
    maxQueued: 100,
    sink: (event) => {
      if (events.push(event) === 164) done.resolve();
    },
    backlog: () => {
      full.resolve();
      return events.length < 100 ? backlog.promise : undefined;
    },
    meter: { decisionDropped: () => (dropped += 1) },
  });
  const stop = new AbortController();
  const running = log.run(stop.signal);
  for (let i = 0; i < 64; i++) log.record(trace);
  await full.promise;
  for (let i = 0; i < 150; i++) log.record(trace);
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual({ written: events.length, dropped }, { written: 64, dropped: 50 });
  backlog.resolve();
  await done.promise;
  stop.abort();
  await running;
  assert.equal(events.length, 164);
});

test('the sample leaves out allows, and counts them; denials are always recorded', async () => {
  const none = await logOf({ sample: 0.5 });
  const denied = await checkOnce(trust, { engine: answering(false) }, getRequest());
  const lifted = await checkOnce(trust, { engine: answering(false), dryRun: true }, getRequest());
  for (const trace of [none.trace, denied, lifted]) none.log.record(trace);
  await none.log.run(AbortSignal.abort());
  assert.deepEqual(
    none.events.map((event) => event['outcome']),
    ['denied', 'lifted'],
  );
  assert.equal(none.dropped(), 1);

  const some = await logOf({ sample: 0.51 });
  some.log.record(some.trace);
  await some.log.run(AbortSignal.abort());
  assert.equal(some.events.length, 1);
});

test('large records are written one in a turn of the event loop, so that Checks come in between', async () => {
  const trace = await checkOnce(trust, {}, getRequest({ body: 'x'.repeat(100_000) }));
  const events: string[] = [];
  const stop = new AbortController();
  const log = createDecisionLog({
    ...options,
    sink() {
      events.push('record');
      if (events.filter((event) => event === 'record').length === 5) stop.abort();
    },
    meter: { decisionDropped: () => assert.fail('a record was dropped') },
  });
  for (let i = 0; i < 5; i++) log.record(trace);
  const tick = (): void => {
    events.push('turn');
    if (!stop.signal.aborted) setImmediate(tick);
  };
  setImmediate(tick);
  await log.run(stop.signal);
  assert.match(events.join(' '), /^(turn )*record( (turn )+record){4}/);
});
