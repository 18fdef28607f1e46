import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, plainCluster } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { startCollector, valueOf } from '../support/otlp.ts';
import { freePort } from '../support/ports.ts';
import { until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { combined, devIdentity } from './world.ts';

const policy = `package e2e

allow := {"allowed": input.parsed_path[0] != "closed", "body": "the reason"}
`;
const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';

test('a Check in a sampled trace has a span below the caller, and a collector that hangs costs no Check', async (t) => {
  const collector = await startCollector(t);
  const opa = await startOpa(t, { over: 'unix', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: 'e2e/allow', peer: { require: false } },
      policy: { opa: { url: opa.url }, timeout: '2s' },
      tracing: { otlp_endpoint: collector.url, sample: 0, service_name: 'mesh' },
    },
  });
  const upstream = await startEchoUpstream(t);
  const port = await freePort();
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [httpListener({ name: 'in', port, cluster: 'upstream', filters: [extAuthz({})] })],
      clusters: [plainCluster('upstream', upstream.port)],
    }),
  });

  const send = (path: string, flags: string) =>
    http({
      port,
      path,
      headers: { traceparent: `00-${traceId}-${spanId}-${flags}`, authorization: 'Bearer of-the-client' },
    });
  assert.equal((await send('/open', '00')).status, 200);
  assert.equal((await http({ port, path: '/open', headers: {} })).status, 200);
  assert.equal((await send('/closed', '01')).status, 403);
  await until('the span of the denial', async () => collector.spans.length >= 3 || undefined);
  const check = collector.spans.find(({ kind }) => kind === 2);
  assert.equal(collector.service, 'mesh');
  assert.deepEqual(
    [check?.name, check?.traceId, check?.parentSpanId],
    ['envoy.service.auth.v3.Authorization/Check', traceId, spanId],
  );
  const attribute = (key: string): string | undefined => valueOf(check?.attributes ?? [], `svidecar.${key}`);
  assert.deepEqual(
    [attribute('result'), attribute('reason_code'), attribute('query'), attribute('engine')],
    ['deny', 'policy_denied', 'e2e/allow', 'opa'],
  );
  assert.match(attribute('decision_id') ?? '', /^[0-9a-f-]{36}$/);
  const children = collector.spans.filter(({ parentSpanId }) => parentSpanId === check?.spanId);
  assert.deepEqual(children.map(({ name }) => name).sort(), ['engine', 'peer']);
  assert.equal(collector.spans.length, 3, 'the Checks that no trace has sampled have none');
  assert.equal(/of-the-client|the reason/.test(collector.text), false);
  await until('the count', async () =>
    (await sidecar.metric('svidecar_spans_exported_total')) === 3 ? true : undefined,
  );

  collector.answer(undefined);
  for (let round = 0; round < 50; round++) assert.equal((await send('/open', '01')).status, 200);
  await until('drops', async () =>
    (await sidecar.metric('svidecar_spans_dropped_total{reason="export_failed"}')) > 0 ? true : undefined,
  );
});

test("a Check's span and record are part of the trace that Envoy itself began", async (t) => {
  const collector = await startCollector(t);
  const opa = await startOpa(t, { over: 'unix', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: 'e2e/allow', peer: { require: false } },
      policy: { opa: { url: opa.url }, timeout: '2s' },
      tracing: { otlp_endpoint: collector.url, sample: 0 },
      decision_log: { console: true },
    },
  });
  const upstream = await startEchoUpstream(t);
  const port = await freePort();
  const tracer = {
    name: 'envoy.tracers.opentelemetry',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig',
      grpc_service: { envoy_grpc: { cluster_name: 'nowhere' } },
    },
  };
  const manager = { tracing: { provider: tracer, random_sampling: { value: 100 } } };
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [httpListener({ name: 'in', port, cluster: 'upstream', manager, filters: [extAuthz({})] })],
      clusters: [plainCluster('upstream', upstream.port), plainCluster('nowhere', await freePort())],
    }),
  });

  const traceOfEnvoy = async (headers: Record<string, string>): Promise<readonly string[]> => {
    const before = collector.spans.length;
    assert.equal((await http({ port, path: '/open', headers })).status, 200);
    const [, trace = '', span = ''] = String(upstream.seen.at(-1)?.headers['traceparent']).split('-');
    await until('the span', async () => collector.spans.length > before || undefined);
    const check = collector.spans.slice(before).find(({ kind }) => kind === 2);
    assert.equal(check?.traceId, trace);
    await sidecar.process().waitForLine(new RegExp(`"trace_id":"${trace}"`));
    return [trace, span, check.parentSpanId ?? ''];
  };
  await traceOfEnvoy({});
  const [trace, , parent] = await traceOfEnvoy({ traceparent: `00-${traceId}-${spanId}-01` });
  assert.equal(trace, traceId);
  assert.notEqual(parent, spanId, "below Envoy's span, not beside it");
});
