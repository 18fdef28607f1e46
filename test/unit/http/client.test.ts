import assert from 'node:assert/strict';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTcpServer, type Socket, type Server as TcpServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createHttpClient, type HttpClient, type HttpRequest } from '../../../src/http/client.ts';
import { AbortedError, LimitError, TimeoutError, UnavailableError } from '../../../src/runtime/errors.ts';
import { tempDirectory, until } from '../../support/process.ts';

const forever = new AbortController().signal;

function client(t: TestContext): HttpClient {
  const http = createHttpClient({ maxSockets: 8 });
  t.after(() => http.close());
  return http;
}

async function listen(t: TestContext, server: Server | TcpServer, at: string | number): Promise<string> {
  await new Promise<void>((resolve) => {
    if (typeof at === 'string') server.listen(at, resolve);
    else server.listen(at, '127.0.0.1', resolve);
  });
  t.after(() => {
    server.close();
    if ('closeAllConnections' in server) server.closeAllConnections();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null
    ? `http://127.0.0.1:${address.port}`
    : `unix://${at}`;
}

function serve(t: TestContext, handle: RequestListener, at: string | number = 0): Promise<string> {
  return listen(t, createServer(handle), at);
}

function get(url: string, more: Partial<HttpRequest> = {}): HttpRequest {
  return { method: 'GET', url, timeoutMs: 5_000, maxBytes: 1_000, ...more };
}

test('it gives status, headers and body of any answer', async (t) => {
  const url = await serve(t, (request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      response.writeHead(418, { 'X-Seen': String(request.headers['x-a']) });
      response.end(`${request.method} ${request.url} ${body}`);
    });
  });
  const request = get(url, { method: 'POST', path: '/a%2Fb?c=d', headers: { 'x-a': '1' }, body: 'ü' });
  const answer = await client(t).request(request, forever);
  assert.equal(answer.status, 418);
  assert.equal(answer.headers['x-seen'], '1');
  assert.equal(answer.body.toString(), 'POST /a%2Fb?c=d ü');
});

test('a slash at the end of a URL without path stays', async (t) => {
  const url = await serve(t, (request, response) => response.end(request.url));
  const body = async (more: Partial<HttpRequest>, at = ''): Promise<string> =>
    (await client(t).request(get(url + at, more), forever)).body.toString();
  assert.equal(await body({}, '/a/'), '/a/');
  assert.equal(await body({ path: '/b' }, '/a/'), '/a/b');
});

test('it speaks over a unix socket', async (t) => {
  const socket = join(await tempDirectory(t), 'http.sock');
  const url = await serve(
    t,
    (request, response) => response.end(`${request.headers.host} ${request.url}`),
    socket,
  );
  const answer = await client(t).request(get(url, { path: '/health' }), forever);
  assert.equal(answer.body.toString(), 'localhost /health');
});

test('connections are kept alive and used again', async (t) => {
  const socket = join(await tempDirectory(t), 'http.sock');
  for (const at of [0, socket]) {
    let connections = 0;
    const server = createServer((_, response) => response.end('x'));
    server.on('connection', () => (connections += 1));
    const url = await listen(t, server, at);
    const http = client(t);
    for (let i = 0; i < 5; i++) await http.request(get(url, { path: '/' }), forever);
    assert.equal(connections, 1);
  }
});

test('a redirect is an answer and is not followed', async (t) => {
  let requests = 0;
  const url = await serve(t, (_, response) => {
    requests += 1;
    response.writeHead(302, { location: '/elsewhere' }).end();
  });
  const answer = await client(t).request(get(url), forever);
  assert.deepEqual([answer.status, requests], [302, 1]);
});

test('a body over the limit is refused, announced or not, and also when it only unpacks to that', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/long') response.end('x'.repeat(1_001));
    else if (request.url === '/endless') {
      const timer = setInterval(() => response.write('x'.repeat(600)), 1);
      response.on('close', () => clearInterval(timer));
    } else if (request.url === '/bomb') {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(10_000_000)));
    } else response.end('x'.repeat(1_000));
  });
  const http = client(t);
  for (const path of ['/long', '/endless', '/bomb']) {
    await assert.rejects(http.request(get(url, { path }), forever), LimitError, path);
  }
  assert.equal((await http.request(get(url, { path: '/fits' }), forever)).body.length, 1_000);
});

test('no answer, or one that stalls, is a timeout', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/stall') response.write('x');
  });
  const http = client(t);
  for (const path of ['/silent', '/stall']) {
    await assert.rejects(http.request(get(url, { path, timeoutMs: 50 }), forever), TimeoutError, path);
  }
});

test('it stops when the signal fires, and the server sees the connection close', async (t) => {
  const closed = Promise.withResolvers<void>();
  const stop = new AbortController();
  const url = await serve(t, (request) => {
    request.socket.on('close', () => closed.resolve());
    stop.abort();
  });
  const http = client(t);
  await assert.rejects(http.request(get(url), stop.signal), AbortedError);
  await closed.promise;
  await assert.rejects(http.request(get(url), stop.signal), AbortedError);
});

test('nobody there is unavailable and names the errno; so is a connection that breaks', async (t) => {
  const http = client(t);
  const missing = join(await tempDirectory(t), 'none.sock');
  await assert.rejects(http.request(get(`unix://${missing}`, { path: '/' }), forever), (error) => {
    return error instanceof UnavailableError && /ENOENT/.test(error.message);
  });
  await assert.rejects(http.request(get('http://127.0.0.1:1'), forever), (error) => {
    return error instanceof UnavailableError && /ECONNREFUSED/.test(error.message);
  });
  const url = await serve(t, (request, response) => {
    response.writeHead(200, { 'content-length': '100' });
    response.write('x', () => request.socket.destroy());
  });
  await assert.rejects(http.request(get(url), forever), UnavailableError);
});

test('an answer that is not HTTP is malformed', async (t) => {
  const tcp = createTcpServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.end('SSH-2.0-x\r\n\r\n'));
  });
  const url = await listen(t, tcp, 0);
  await assert.rejects(client(t).request(get(url), forever), /is not valid HTTP/);
});

test('an error does not tell the query, which may hold a secret', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url?.startsWith('/cut')) response.writeHead(200, { 'content-length': 10 }).write('x');
    response.destroy();
  });
  for (const path of ['/cut?sig=s3cret&x=s3cret', '/gone?sig=s3cret']) {
    await assert.rejects(client(t).request(get(url + path), forever), (error) => {
      assert.ok(error instanceof UnavailableError);
      assert.doesNotMatch(error.message, /s3cret/);
      assert.match(error.message, /\/(?:cut|gone)/);
      return true;
    });
  }
});

test('it is told of each kept connection that ends, and of none that is in use', async (t) => {
  const sockets: Socket[] = [];
  const waiting: (() => void)[] = [];
  const server = createServer((request, response) => {
    if (request.url === '/wait') waiting.push(() => response.end('late'));
    else response.end('x');
  });
  server.on('connection', (socket) => sockets.push(socket));
  const url = await listen(t, server, 0);
  let ends = 0;
  const http = createHttpClient({ maxSockets: 8, onIdleEnd: () => (ends += 1) });
  t.after(() => http.close());
  const endAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };

  await http.request(get(url, { path: '/' }), forever);
  await http.request(get(url, { path: '/' }), forever);
  assert.deepEqual([sockets.length, ends], [1, 0]);
  endAll();
  await until('the end to be told', () => Promise.resolve(ends === 1 || undefined));

  await http.request(get(url, { path: '/' }), forever);
  const inUse = http.request(get(url, { path: '/wait' }), forever);
  await until('the request', () => Promise.resolve(waiting.length === 1 || undefined));
  endAll();
  await assert.rejects(inUse, UnavailableError);
  assert.equal(ends, 1, 'whoever waits for the answer knows already');
});
