import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { until } from '../support/process.ts';
import { http, startCaller } from './caller.ts';
import { allowed, denied } from './world.ts';

type Record = Readonly<{ [member: string]: unknown }>;

/** A decision log service that can be told to fail. */
async function startService(t: TestContext) {
  const records: Record[] = [];
  const service = { status: 200, requests: 0 };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      service.requests += 1;
      if (service.status === 200) {
        records.push(...(JSON.parse(gunzipSync(Buffer.concat(chunks)).toString()) as Record[]));
      }
      response.writeHead(service.status).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/logs`, records, service };
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
