import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { sleep } from '../../../src/runtime/abort.ts';
import { runTraffic } from '../../../src/stack/traffic.ts';

const never = new AbortController().signal;

async function serve(
  t: TestContext,
  listener: RequestListener,
): Promise<{ port: number; connections: () => number }> {
  let connections = 0;
  const server = createServer(listener).on('connection', () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, connections: () => connections };
}

const options = { loops: 2, pauseMs: 0, requestsPerConnection: 5, maxRequests: 20, sleep };

test('the traffic is bounded, and opens new connections on its way', async (t) => {
  const { port, connections } = await serve(t, (_, response) => response.end('ok'));
  const report = await runTraffic({ ...options, request: { port, path: '/' } }, never);
  assert.deepEqual(report, { sent: 20, failures: [] });
  assert.ok(connections() >= 4, `${connections()} connections`);
});

test('every answer but 200 and every broken connection is counted', async (t) => {
  let count = 0;
  const { port } = await serve(t, (request, response) => {
    count += 1;
    if (count === 3) request.socket.destroy();
    else response.writeHead(count === 5 ? 503 : 200).end();
  });
  const { sent, failures } = await runTraffic({ ...options, loops: 1, request: { port, path: '/' } }, never);
  assert.equal(sent, 20);
  assert.equal(failures.length, 2);
  assert.match(failures.join('\n'), /socket hang up/);
  assert.match(failures.join('\n'), /status 503/);
});

test('the request in flight when the traffic ends is no failure', async (t) => {
  const until = new AbortController();
  const { port } = await serve(t, (_, response) => {
    until.abort();
    setImmediate(() => response.end('ok'));
  });
  const report = await runTraffic({ ...options, loops: 1, request: { port, path: '/' } }, until.signal);
  assert.deepEqual(report, { sent: 1, failures: [] });
});
