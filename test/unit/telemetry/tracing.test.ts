import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { sleep } from '../../../src/runtime/abort.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { createTracing, type ServerSpan, type TracingOptions } from '../../../src/telemetry/tracing.ts';
import { startCollector } from '../../support/otlp.ts';
import { freePort } from '../../support/ports.ts';
import { until } from '../../support/process.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';
// Long before this process began.
const startedAt = 1_700_000_000_123.5;
const span: ServerSpan = {
  name: 'work',
  startedAt,
  durationMs: 10.25,
  parent: { traceId, spanId },
  attributes: { 'a.b': 'c' },
  failed: false,
  children: [{ name: 'step', afterMs: 1, durationMs: 2.5 }],
};

/** Runs until the test ends, or `stop` is called. */
function start(t: TestContext, endpoint: string, more: Partial<TracingOptions> = {}) {
  const counts: Record<string, number> = {};
  const count = (name: string, by: number): void => void (counts[name] = (counts[name] ?? 0) + by);
  const logged: string[] = [];
  const note = (_: unknown, message: string): void => void logged.push(message);
  const tracing = createTracing({
    endpoint,
    serviceName: 'test',
    version: '1',
    sleep,
    log: { ...silentLogger, warn: note, info: note },
    meter: { spansExported: (by) => count('exported', by), spansDropped: count },
    intervalMs: 10,
    ...more,
  });
  const controller = new AbortController();
  const { promise: drained, resolve } = Promise.withResolvers<void>();
  const running = tracing.run(controller.signal, drained, 500);
  const stop = async (last: readonly ServerSpan[] = []): Promise<void> => {
    controller.abort();
    for (const one of last) tracing.record(one);
    resolve();
    await running;
  };
  t.after(() => stop());
  return { tracing, counts, logged, stop };
}

test('a span goes out with its times, its parent, its attributes and its children', async (t) => {
  const collector = await startCollector(t);
  const { tracing, counts } = start(t, `${collector.url}/`);
  tracing.record(span);
  await until('two spans', async () => collector.spans.length === 2 || undefined);
  const server = collector.spans.find(({ name }) => name === 'work');
  const step = collector.spans.find(({ name }) => name === 'step');
  assert.equal(collector.service, 'test');
  assert.deepEqual(
    [server?.traceId, server?.parentSpanId, server?.kind, server?.status.code],
    [traceId, spanId, 2, 0],
  );
  assert.deepEqual(
    [server?.startTimeUnixNano, server?.endTimeUnixNano],
    ['1700000000123500000', '1700000000133750000'],
  );
  assert.deepEqual(server?.attributes, [{ key: 'a.b', value: { stringValue: 'c' } }]);
  assert.deepEqual([step?.traceId, step?.parentSpanId, step?.kind], [traceId, server?.spanId, 1]);
  assert.deepEqual(
    [step?.startTimeUnixNano, step?.endTimeUnixNano],
    ['1700000000124500000', '1700000000127000000'],
  );
  await until('the count', async () => counts['exported'] === 2 || undefined);
});

test('without a parent a trace begins, and what failed is an error', async (t) => {
  const collector = await startCollector(t);
  const { tracing } = start(t, collector.url);
  tracing.record({ ...span, parent: undefined, failed: true, children: [] });
  await until('a span', async () => collector.spans.length === 1 || undefined);
  const [root] = collector.spans;
  assert.match(root?.traceId ?? '', /^[0-9a-f]{32}$/);
  assert.notEqual(root?.traceId, traceId);
  assert.equal(root?.parentSpanId, undefined);
  assert.equal(root?.status.code, 2);
});

test('spans beyond the queue are dropped and counted, and the last ones go out at the stop', async (t) => {
  const collector = await startCollector(t);
  const { counts, stop } = start(t, collector.url, { intervalMs: 60_000, maxQueue: 3 });
  const one = { ...span, children: [] };
  await stop([one, one, one, one, one]);
  assert.deepEqual(counts, { queue_full: 2, exported: 3 });
  assert.equal(collector.spans.length, 3);
});

test('a collector that refuses costs its spans, is told of once, and is used again when it is back', async (t) => {
  const collector = await startCollector(t);
  collector.answer(400);
  const { tracing, counts, logged } = start(t, collector.url);
  tracing.record(span);
  await until('a refusal', async () => counts['export_failed'] === 2 || undefined);
  tracing.record(span);
  await until('another refusal', async () => counts['export_failed'] === 4 || undefined);
  assert.deepEqual(logged, ['the collector does not take spans: they are dropped']);
  collector.answer(200);
  tracing.record(span);
  await until('success', async () => counts['exported'] === 2 || undefined);
  assert.deepEqual(logged.slice(1), ['the collector takes spans again']);
});

test('a collector that is not there, or never answers, does not hold the stop up', async (t) => {
  const collector = await startCollector(t);
  collector.answer(undefined);
  const dead = start(t, `http://127.0.0.1:${await freePort()}`);
  const silent = start(t, collector.url);
  for (const { stop, counts } of [dead, silent]) {
    const began = performance.now();
    await stop([span]);
    assert.ok(performance.now() - began < 10_000);
    assert.equal(counts['exported'], undefined);
  }
});
