import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingHttpHeaders, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { after, describe, it } from 'node:test';
import { get, json, post, type Routes } from '../../../src/admin/http.ts';
import { type Readiness, readinessOf } from '../../../src/admin/readiness.ts';
import {
  type AdminListener,
  type AdminScope,
  createAdminServer,
  isHostAllowed,
} from '../../../src/admin/server.ts';
import { buildStatus } from '../../../src/admin/status.ts';
import { aborted } from '../../../src/runtime/abort.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { emptySnapshot } from '../../../src/trust/snapshot.ts';
import { until } from '../../support/process.ts';

type Answer = Readonly<{ status: number; headers: IncomingHttpHeaders; body: string }>;

const listeners: AdminListener[] = [];
after(async () => {
  for (const listener of listeners) await listener.close();
});

async function start(
  scope: AdminScope,
  readiness: () => Readiness = () => readinessOf({}),
  metrics = () => Promise.resolve({ contentType: 'text/plain; version=0.0.4', body: 'svidecar_x 1\n' }),
  routes: Routes = new Map(),
): Promise<AdminListener> {
  const status = () =>
    buildStatus({
      version: '1.2.3',
      startedAt: 0,
      now: 1000,
      readiness: readiness(),
      snapshot: emptySnapshot,
      identity: { source: 'dev', problem: undefined },
      envoys: [],
      policy: undefined,
      decisions: [],
      outputs: [],
    });
  const server = createAdminServer({ readiness, status, metrics, routes, log: silentLogger });
  const listener = await server.listen({ host: '127.0.0.1', port: 0 }, scope);
  listeners.push(listener);
  return listener;
}

function ask(
  { port }: AdminListener,
  path: string,
  options: { method?: string; host?: string; body?: string | Buffer; headers?: OutgoingHttpHeaders } = {},
): Promise<Answer> {
  const { method = 'GET', host = `127.0.0.1:${port}`, body, headers = {} } = options;
  const chunked = headers['transfer-encoding'] !== undefined;
  return new Promise((resolve, reject) => {
    const call = request(
      {
        host: '127.0.0.1',
        port,
        path,
        method,
        headers: {
          host,
          ...(body === undefined || chunked ? {} : { 'content-length': Buffer.byteLength(body) }),
          ...headers,
        },
        agent: false,
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          text += part;
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
        );
      },
    );
    call.on('error', reject);
    call.end(body);
  });
}

describe('admin server', () => {
  it('answers /live and /health while the loop turns, ready or not', async () => {
    const listener = await start('all', () => readinessOf({ identity: 'no identity yet' }));
    for (const path of ['/live', '/health', '/live?probe=1']) {
      const { status, body } = await ask(listener, path);
      assert.equal(status, 200, path);
      assert.deepEqual(JSON.parse(body), { status: 'live' });
    }
  });

  it('answers /ready with 503 and what is missing, then 200', async () => {
    let problem: string | undefined = 'no identity yet';
    const listener = await start('all', () => readinessOf({ identity: problem, policy: undefined }));
    const before = await ask(listener, '/ready');
    assert.equal(before.status, 503);
    assert.deepEqual(JSON.parse(before.body), {
      status: 'not_ready',
      missing: [{ part: 'identity', reason: 'no identity yet' }],
    });
    problem = undefined;
    const later = await ask(listener, '/ready');
    assert.equal(later.status, 200);
    assert.deepEqual(JSON.parse(later.body), { status: 'ready' });
  });

  it('serves metrics as they are rendered, and never from a cache', async () => {
    const { status, headers, body } = await ask(await start('all'), '/metrics');
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'text/plain; version=0.0.4');
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(body, 'svidecar_x 1\n');
  });

  it('serves the status as JSON and as a page that may load nothing', async () => {
    const listener = await start('all');
    const status = await ask(listener, '/status');
    assert.equal((JSON.parse(status.body) as { version: string }).version, '1.2.3');
    const page = await ask(listener, '/');
    assert.match(page.headers['content-type'] ?? '', /text\/html/);
    assert.match(String(page.headers['content-security-policy']), /^default-src 'none'; style-src 'sha256-/);
    assert.match(page.body, /<h1>svidecar<\/h1>/);
  });

  it('serves only probes and metrics on the probe listener', async () => {
    const listener = await start('probes');
    for (const path of ['/live', '/health', '/ready', '/metrics']) {
      assert.equal((await ask(listener, path)).status, 200, path);
    }
    for (const path of ['/', '/status', '/nothing']) {
      assert.equal((await ask(listener, path)).status, 404, path);
    }
  });

  it('refuses a Host that is a name other than localhost', async () => {
    const listener = await start('all');
    for (const host of [
      'evil.example',
      'evil.example:9902',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
    ]) {
      assert.equal((await ask(listener, '/status', { host })).status, 403, host);
    }
    for (const host of ['localhost', 'LOCALHOST:9902', '127.0.0.1', '10.0.0.7:9903', '[::1]', '[::1]:9902']) {
      assert.equal((await ask(listener, '/status', { host })).status, 200, host);
    }
    assert.equal(isHostAllowed(undefined), true);
    assert.equal(isHostAllowed('[127.0.0.1]'), false);
    assert.equal(isHostAllowed('localhost:x'), false);
    assert.equal(isHostAllowed('a@127.0.0.1'), false);
  });

  it('reads the body of a POST, up to its bound, and refuses what is no text', async () => {
    const routes: Routes = new Map([
      ['/echo', post(({ body, query }) => json(200, [body.length, query.toString()]))],
    ]);
    const listener = await start('all', undefined, undefined, routes);
    const answer = (body: string | Buffer, headers = {}) =>
      ask(listener, '/echo?a=1&b=%20', { method: 'POST', body, headers });
    assert.deepEqual(JSON.parse((await answer('täxt')).body), [4, 'a=1&b=+']);
    assert.deepEqual(JSON.parse((await answer('')).body), [0, 'a=1&b=+']);
    assert.equal((await answer('x'.repeat(256 * 1024))).status, 200);
    for (const headers of [{}, { 'transfer-encoding': 'chunked' }]) {
      const tooLong = await answer('x'.repeat(256 * 1024 + 1), headers);
      assert.equal(tooLong.status, 413);
      assert.equal(tooLong.headers.connection, 'close');
      assert.deepEqual(JSON.parse(tooLong.body), { error: 'body is longer than 262144 bytes' });
    }
    const binary = await answer(Buffer.from([0xff, 0xfe]));
    assert.equal(binary.status, 400);
    assert.deepEqual(JSON.parse(binary.body), { error: 'body is not UTF-8' });
    for (const method of ['GET', 'HEAD', 'PUT']) {
      const { status, headers } = await ask(listener, '/echo', { method });
      assert.equal(status, 405, method);
      assert.equal(headers.allow, 'POST');
    }
  });

  it('says nothing in the log of a client that goes away in the middle of its body', async () => {
    const said: string[] = [];
    const routes: Routes = new Map([['/echo', post(() => json(200, {}))]]);
    const server = createAdminServer({
      readiness: () => readinessOf({}),
      status: () => assert.fail('not asked'),
      metrics: () => assert.fail('not asked'),
      routes,
      log: { ...silentLogger, warn: (_, text) => said.push(text), error: (_, text) => said.push(text) },
    });
    const listener = await server.listen({ host: '127.0.0.1', port: 0 }, 'all');
    const socket = connect(listener.port, '127.0.0.1', () => {
      socket.write('POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{');
      socket.end();
    });
    await once(socket.resume(), 'close');
    await listener.close();
    assert.deepEqual(said, []);
  });

  it('serves nothing but probes and metrics on the probe listener, also of other parts', async () => {
    const routes: Routes = new Map([['/more', get(() => json(200, {}))]]);
    assert.equal((await ask(await start('all', undefined, undefined, routes), '/more')).status, 200);
    assert.equal((await ask(await start('probes', undefined, undefined, routes), '/more')).status, 404);
  });

  it('streams until the client is gone, and ends streams when it closes', async () => {
    const ended: string[] = [];
    async function* chunks(signal: AbortSignal): AsyncIterable<string> {
      yield 'first\n';
      await aborted(signal);
      ended.push('end');
    }
    const routes: Routes = new Map([
      ['/stream', get(({ signal }) => ({ contentType: 'text/event-stream', chunks: chunks(signal) }))],
    ]);
    const listener = await start('all', undefined, undefined, routes);
    const head = await ask(listener, '/stream', { method: 'HEAD' });
    assert.equal(head.headers['content-type'], 'text/event-stream');
    assert.equal(head.body, '');
    const open = () =>
      new Promise<IncomingMessage>((resolve, reject) => {
        request({ host: '127.0.0.1', port: listener.port, path: '/stream', agent: false }, resolve)
          .once('error', reject)
          .end();
      });
    const left = await open();
    await once(left, 'data');
    left.destroy();
    await until('the stream to end with its client', () => (ended.length === 1 ? true : undefined));
    const stayed = await open();
    await once(stayed, 'data');
    const whole = once(stayed, 'end');
    await listener.close();
    await whole;
    assert.equal(ended.length, 2);
  });

  it('answers probes whatever many connections say nothing', async (t) => {
    const listener = await start('probes');
    const silent = Array.from({ length: 300 }, () => connect(listener.port, '127.0.0.1'));
    t.after(() => silent.forEach((socket) => void socket.destroy()));
    for (const socket of silent) socket.on('error', () => {}).write('GET /live HTTP/1.1\r\nHost: 1');
    await until('all to be connected', () => silent.every(({ connecting }) => !connecting) || undefined);
    assert.equal((await ask(listener, '/live')).status, 200);
  });

  it('takes GET and HEAD only', async () => {
    const listener = await start('all');
    const head = await ask(listener, '/metrics', { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal(head.headers['content-length'], '13');
    assert.equal(head.body, '');
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const { status, headers } = await ask(listener, '/live', { method, body: 'x' });
      assert.equal(status, 405, method);
      assert.equal(headers.allow, 'GET, HEAD');
      assert.equal(headers.connection, 'close');
    }
  });

  it('answers 500 without a word of what failed', async () => {
    const listener = await start(
      'all',
      () => readinessOf({}),
      () => Promise.reject(new Error('inner detail')),
    );
    const { status, body } = await ask(listener, '/metrics');
    assert.equal(status, 500);
    assert.deepEqual(JSON.parse(body), { error: 'internal error' });
  });

  it('refuses headers beyond 16 KiB and lives on', async () => {
    const listener = await start('all');
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(listener.port, '127.0.0.1', () => {
        socket.write(`GET /live HTTP/1.1\r\nhost: localhost\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`);
      });
      let received = '';
      socket.on('data', (part) => {
        received += String(part);
      });
      socket.on('error', reject);
      socket.on('close', () => resolve(received));
    });
    assert.match(text, /^HTTP\/1\.1 431 /);
    assert.equal((await ask(listener, '/live')).status, 200);
  });

  it('says what is in the way when it cannot bind', async () => {
    const first = await start('all');
    const server = createAdminServer({
      readiness: () => readinessOf({}),
      status: () => assert.fail('not asked'),
      metrics: () => assert.fail('not asked'),
      routes: new Map(),
      log: silentLogger,
    });
    await assert.rejects(server.listen({ host: '127.0.0.1', port: first.port }, 'all'), {
      name: 'UnavailableError',
      message: `admin server cannot listen on 127.0.0.1 port ${first.port}: the port is taken; stop the other program or change the address`,
    });
  });

  it('ends connections that are open when it closes', async () => {
    const listener = await start('all');
    const socket = connect(listener.port, '127.0.0.1');
    await new Promise((resolve) => socket.once('connect', resolve));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    await listener.close();
    await closed;
  });
});
