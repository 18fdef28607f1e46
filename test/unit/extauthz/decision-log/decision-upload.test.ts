import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import {
  createDecisionUpload,
  type DecisionUploadOptions,
} from '../../../../src/extauthz/decision-log/decision-upload.ts';
import { createHttpClient } from '../../../../src/http/client.ts';
import { sleep } from '../../../../src/runtime/abort.ts';
import { until } from '../../../support/process.ts';

type Answer = (batch: readonly Record<string, unknown>[], response: ServerResponse) => void;

const accept: Answer = (_batch, response) => void response.writeHead(204).end();
const answer =
  (status: number): Answer =>
  (_batch, response) =>
    void response.writeHead(status).end('{}');

/** A decision log service over real HTTP, and an uploader to it whose waits are a thousandth as long. */
async function start(t: TestContext, first: Answer, limits: Partial<DecisionUploadOptions> = {}) {
  const ids: string[][] = [];
  const requests: IncomingMessage[] = [];
  const behaviour = { answer: first };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      requests.push(request);
      const batch = JSON.parse(gunzipSync(Buffer.concat(chunks)).toString()) as Record<string, unknown>[];
      ids.push(batch.map((event) => String(event['decision_id'])));
      behaviour.answer(batch, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const http = createHttpClient({ maxSockets: 1 });
  t.after(() => {
    http.close();
    server.closeAllConnections();
    server.close();
  });
  const counts = {
    sent: 0,
    shortened: 0,
    failed: 0,
    upload_buffer_full: 0,
    upload_refused: 0,
    upload_shutdown: 0,
  };
  const upload = createDecisionUpload({
    url: `http://127.0.0.1:${port}/logs/`,
    http,
    sleep: (ms, signal) => sleep(ms / 1000, signal),
    random: () => 0.5,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    meter: {
      decisionsSent: (count) => (counts.sent += count),
      decisionsLost: (reason, count) => (counts[reason] += count),
      decisionShortened: () => (counts.shortened += 1),
      uploadFailed: () => (counts.failed += 1),
    },
    ...limits,
  });
  const add = (id: string, more: Record<string, unknown> = {}): void => {
    const event = { decision_id: id, ...more };
    upload.add(event, JSON.stringify(event));
  };
  const stop = new AbortController();
  let running: Promise<void> | undefined;
  const run = (flushMs = 5_000): void => {
    running = upload.run(stop.signal, flushMs);
  };
  const end = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  t.after(end);
  return { add, run, end, ids, requests, counts, behaviour };
}

const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => String(from + index));

test('records arrive in order as a gzip JSON array, posted to the URL as it is given', async (t) => {
  const { add, run, end, ids, requests, counts } = await start(t, accept);
  for (const id of numbers(0, 5)) add(id);
  run();
  await until('the batch', () => (counts.sent === 5 ? true : undefined));
  await end();
  assert.deepEqual(ids, [numbers(0, 5)]);
  const [request] = requests;
  assert.equal(`${request?.method} ${request?.url}`, 'POST /logs/');
  assert.equal(request?.headers['content-encoding'], 'gzip');
  assert.equal(request?.headers['content-type'], 'application/json');
});

test('a batch is no larger than its limit', async (t) => {
  const { add, run, end, ids } = await start(t, accept, { maxBatchBytes: 1_000 });
  for (const id of numbers(0, 20)) add(id, { input: 'x'.repeat(200) });
  run();
  await end();
  assert.deepEqual(ids.flat(), numbers(0, 20));
  assert.ok(ids.every((batch) => batch.length <= 3));
});

test('a batch that fails is sent again until the service takes it, once', async (t) => {
  const { add, run, end, ids, counts, behaviour } = await start(t, answer(500));
  for (const id of numbers(0, 3)) add(id);
  run();
  await until('three failures', () => (counts.failed >= 3 ? true : undefined));
  behaviour.answer = (_batch, response) => void response.destroy();
  const before = counts.failed;
  await until('a broken connection', () => (counts.failed > before ? true : undefined));
  behaviour.answer = accept;
  await until('the batch', () => (counts.sent === 3 ? true : undefined));
  await end();
  assert.deepEqual(ids.at(-1), numbers(0, 3));
  assert.equal(counts.sent, 3);
});

test('while the service is away the newest are kept within the bounds, and the others counted', async (t) => {
  const { add, run, counts, behaviour, end, ids } = await start(t, answer(503), { maxRecords: 10 });
  run();
  for (const id of numbers(0, 10)) add(id);
  await until('a failure', () => (counts.failed > 0 ? true : undefined));
  for (const id of numbers(10, 30)) add(id);
  behaviour.answer = accept;
  // The first ten may be on their way when they leave the buffer: then they are sent, else lost, and never both.
  await until('every record', () => (counts.sent + counts.upload_buffer_full === 30 ? true : undefined));
  await end();
  assert.deepEqual(ids.at(-1), numbers(20, 30));
  assert.ok(counts.upload_buffer_full === 20 || counts.upload_buffer_full === 10);

  const small = await start(t, accept, { maxBytes: 2_000 });
  for (const id of numbers(0, 10)) small.add(id, { input: 'x'.repeat(400) });
  assert.equal(small.counts.upload_buffer_full, 6);
});

test('a record that left the buffer while it was being sent is counted once, as what became of it', async (t) => {
  const held = Promise.withResolvers<ServerResponse>();
  const slow: Answer = (_batch, response) => held.resolve(response);
  const { add, run, counts, behaviour, end } = await start(t, slow, { maxRecords: 2 });
  for (const id of numbers(0, 2)) add(id);
  run();
  const response = await held.promise;
  for (const id of numbers(2, 5)) add(id);
  behaviour.answer = accept;
  response.writeHead(200).end();
  await until('the rest', () => (counts.sent === 4 ? true : undefined));
  await end();
  assert.equal(counts.upload_buffer_full, 1);
});

test('a record that the service refuses for its content is lost alone', async (t) => {
  const poison: Answer = (batch, response) =>
    void response.writeHead(batch.some((event) => event['decision_id'] === '5') ? 400 : 200).end();
  const { add, run, counts, end, ids } = await start(t, poison);
  for (const id of numbers(0, 9)) add(id);
  run();
  await until('all the others', () => (counts.sent === 8 ? true : undefined));
  await end();
  assert.equal(counts.upload_refused, 1);
  assert.ok(ids.length < 20);
});

test('a record too large for a batch goes without input and result', async (t) => {
  const events: Record<string, unknown>[] = [];
  const keep: Answer = (batch, response) => {
    events.push(...batch);
    accept(batch, response);
  };
  const { add, run, counts, end } = await start(t, keep, { maxBatchBytes: 1_000 });
  add('1', { input: 'x'.repeat(2_000), result: true, outcome: 'allowed' });
  run();
  await end();
  assert.deepEqual(events, [{ decision_id: '1', outcome: 'allowed', erased: ['/input', '/result'] }]);
  assert.equal(counts.shortened, 1);
});

test('at the end a batch under way is finished, not sent twice, and the rest is flushed', async (t) => {
  const held = Promise.withResolvers<ServerResponse>();
  const slow: Answer = (_batch, response) => held.resolve(response);
  const { add, run, counts, behaviour, end, ids } = await start(t, slow);
  add('1');
  run();
  const response = await held.promise;
  add('2');
  behaviour.answer = accept;
  const ended = end();
  response.writeHead(200).end();
  await ended;
  assert.deepEqual(ids, [['1'], ['2']]);
  assert.equal(counts.sent, 2);
});

test('a service that stays away at the end costs the records and no more than the time given', async (t) => {
  const { add, run, counts, end } = await start(t, () => {});
  for (const id of numbers(0, 4)) add(id);
  run(50);
  await end();
  assert.equal(counts.upload_shutdown, 4);
  assert.equal(counts.sent, 0);
});
