import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCheckSpans } from '../../../src/app/check-spans.ts';
import { type CheckTrace, noSteps } from '../../../src/extauthz/check-trace.ts';
import type { ServerSpan } from '../../../src/telemetry/tracing.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';

function spansOf(
  headers: Record<string, string>,
  sample: number,
  more: Partial<CheckTrace> = {},
): readonly ServerSpan[] {
  const spans: ServerSpan[] = [];
  const tell = createCheckSpans({
    sample,
    random: () => 0.5,
    engine: 'wasm',
    record: (span) => void spans.push(span),
  });
  tell({
    ...noSteps,
    request: { attributes: undefined, headers },
    decisionId: 'an id',
    startedAt: 5,
    durationMs: 10,
    outcome: { kind: 'failed', reasonCode: 'engine_timeout', message: 'secret' },
    ...more,
  });
  return spans;
}

test('the word of the caller counts, and without one the share', () => {
  const sampled = { traceparent: `00-${traceId}-${spanId}-01` };
  const unsampled = { traceparent: `00-${traceId}-${spanId}-00` };
  assert.equal(spansOf(sampled, 0).length, 1);
  assert.equal(spansOf(unsampled, 1).length, 0);
  for (const open of [{ b3: `${traceId}-${spanId}` }, {}]) {
    assert.equal(spansOf(open, 0.6).length, 1);
    assert.equal(spansOf(open, 0.5).length, 0);
  }
  assert.equal(spansOf({ b3: `${traceId}-${spanId}` }, 1)[0]?.parent?.traceId, traceId);
});

test('the word of Envoy, in the call, counts before that of the headers', () => {
  const strangers = { traceparent: `00-${traceId}-${spanId}-01` };
  const callTrace = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), sampled: true };
  assert.deepEqual(spansOf(strangers, 0, { callTrace })[0]?.parent, callTrace);
  assert.equal(spansOf(strangers, 1, { callTrace: { ...callTrace, sampled: false } }).length, 0);
});

test('a span tells how the Check ended and what took how long, and nothing of the request', () => {
  const [span] = spansOf({ authorization: 'Bearer secret' }, 1, {
    intervals: [
      { step: 'peer', fromMs: 1, toMs: 2 },
      { step: 'engine', fromMs: 3, toMs: undefined },
    ],
  });
  assert.deepEqual(span?.children, [
    { name: 'peer', afterMs: 1, durationMs: 1 },
    { name: 'engine', afterMs: 3, durationMs: 7 },
  ]);
  assert.equal(span?.failed, true);
  assert.equal(span?.parent, undefined);
  assert.deepEqual(span?.attributes, {
    'rpc.system': 'grpc',
    'rpc.service': 'envoy.service.auth.v3.Authorization',
    'rpc.method': 'Check',
    'svidecar.decision_id': 'an id',
    'svidecar.result': 'failure',
    'svidecar.engine': 'wasm',
    'svidecar.reason_code': 'engine_timeout',
  });
  assert.equal(JSON.stringify(span).includes('secret'), false);
});

test('a Check that was refused unseen has a span, too', () => {
  assert.equal(spansOf({}, 1, { request: undefined }).length, 1);
});
