import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import { chmodSync, linkSync } from 'node:fs';
import { createServer as createHttp2Server } from 'node:http2';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { createGrpcClient, type GrpcClient } from '../../../src/grpc/client.ts';
import { createGrpcServer } from '../../../src/grpc/server.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { AbortedError, errnoOf } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { deferred, echoService, never, startEcho, temporaryDirectory, textsOf, thenWait } from './echo.ts';

const unary = '/test.Echo/Unary';
const stream = '/test.Echo/Stream';
const bidi = '/test.Echo/Bidi';

function clientOf(path: string): GrpcClient {
  return createGrpcClient({ target: { kind: 'unix', path }, maxMessageBytes: 1024 });
}

function unavailable(errno?: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(error.status, Status.UNAVAILABLE);
    assert.equal(error.code, 'unavailable');
    if (errno !== undefined) {
      assert.equal(errnoOf(error), errno);
      assert.ok(error.details.includes(errno), error.details);
    }
    return true;
  };
}

describe('a gRPC client', () => {
  it('says at once that there is no socket, whatever the kind of call', async () => {
    using directory = temporaryDirectory();
    const client = clientOf(join(directory.path, 'absent.sock'));
    const before = performance.now();
    for (let round = 0; round < 3; round++) {
      await assert.rejects(client.unary(unary, Buffer.alloc(0), { signal: never }), unavailable('ENOENT'));
      const requests = thenWait(['x'], never);
      await assert.rejects(textsOf(client.bidi(bidi, requests, { signal: never })), unavailable('ENOENT'));
      const answers = client.serverStream(stream, Buffer.alloc(0), { signal: never });
      await assert.rejects(textsOf(answers), unavailable('ENOENT'));
    }
    assert.ok(performance.now() - before < 900, 'no backoff of its own');
    client.close();
  });

  it('tells a socket nobody serves and a port nobody listens at', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const server = createServer().listen(path);
    await once(server, 'listening');
    linkSync(path, `${path}.dead`);
    server.close();
    const client = clientOf(`${path}.dead`);
    await assert.rejects(
      client.unary(unary, Buffer.alloc(0), { signal: never }),
      unavailable('ECONNREFUSED'),
    );
    client.close();

    const port = createServer().listen(0, '127.0.0.1');
    await once(port, 'listening');
    const address = port.address();
    assert.ok(address !== null && typeof address === 'object');
    port.close();
    await once(port, 'close');
    const target = { kind: 'tcp', host: '127.0.0.1', port: address.port } as const;
    const tcp = createGrpcClient({ target, maxMessageBytes: 1024 });
    await assert.rejects(tcp.unary(unary, Buffer.alloc(0), { signal: never }), unavailable('ECONNREFUSED'));
    tcp.close();
  });

  it('tells that it may not use a socket', async () => {
    await using echo = await startEcho();
    assert.ok(echo.address.kind === 'unix');
    const { path } = echo.address;
    chmodSync(path, 0);
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) chmodSync(dirname(path), 0o755);
    if (isRoot) process.seteuid?.(65_534);
    try {
      await assert.rejects(
        echo.client.unary(unary, Buffer.alloc(0), { signal: never }),
        unavailable('EACCES'),
      );
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });

  it('connects anew with the very next call once the server is there', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const client = clientOf(path);
    for (let round = 0; round < 3; round++) {
      await assert.rejects(client.unary(unary, Buffer.alloc(0), { signal: never }), unavailable());
      const server = createGrpcServer({ services: [echoService()], log: silentLogger });
      await server.listen({ kind: 'unix', path });
      const before = performance.now();
      assert.equal((await client.unary(unary, Buffer.from('x'), { signal: never })).toString(), 'x');
      assert.ok(performance.now() - before < 500);
      await server.shutdown(0);
    }
    client.close();
  });

  it('sends localhost as its authority over a unix socket', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const server = createHttp2Server().listen(path);
    await once(server, 'listening');
    const client = clientOf(path);
    const call = client.unary(unary, Buffer.alloc(0), { signal: never });
    const [request, headers] = await once(server, 'stream');
    assert.equal(headers[':authority'], 'localhost');
    request.respond(
      { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': 5 },
      { endStream: true },
    );
    await assert.rejects(call, (error) => error instanceof StatusError && error.code === 'not_found');
    client.close();
    server.close();
  });

  it('fails a call whose signal has fired already, before it is sent', async () => {
    let calls = 0;
    await using echo = await startEcho({
      unary: async (request) => {
        calls += 1;
        return request;
      },
    });
    const options = { signal: AbortSignal.abort() };
    await assert.rejects(echo.client.unary(unary, Buffer.alloc(0), options), AbortedError);
    await assert.rejects(textsOf(echo.client.serverStream(stream, Buffer.alloc(0), options)), AbortedError);
    await assert.rejects(textsOf(echo.client.bidi(bidi, thenWait([], never), options)), AbortedError);
    assert.equal(calls, 0);
  });

  it('leaves no listener at the signal', async () => {
    await using echo = await startEcho();
    const { signal } = new AbortController();
    await echo.client.unary(unary, Buffer.alloc(0), { signal });
    await assert.rejects(echo.client.unary('/no/such', Buffer.alloc(0), { signal }));
    await textsOf(echo.client.serverStream(stream, Buffer.alloc(0), { signal }));
    await textsOf(echo.client.bidi(bidi, thenWait(['x'], AbortSignal.abort()), { signal }));
    for await (const _ of echo.client.serverStream(stream, Buffer.alloc(0), { signal })) break;
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('fails a bidirectional call with the error of its requests', async () => {
    await using echo = await startEcho();
    async function* requests(): AsyncIterable<Buffer> {
      yield Buffer.from('x');
      throw new Error('no more');
    }
    await assert.rejects(textsOf(echo.client.bidi(bidi, requests(), { signal: never })), {
      message: 'no more',
    });
  });

  it('closes the requests when it stops reading', async () => {
    await using echo = await startEcho();
    const closed = deferred<void>();
    async function* requests(): AsyncIterable<Buffer> {
      try {
        for (;;) yield Buffer.from('x');
      } finally {
        closed.resolve();
      }
    }
    for await (const _ of echo.client.bidi(bidi, requests(), { signal: never })) break;
    await closed.promise;
  });

  it('refuses a message beyond its limit', async () => {
    await using echo = await startEcho({ unary: async () => Buffer.alloc(2000) });
    const client = createGrpcClient({ target: echo.address, maxMessageBytes: 1000 });
    await assert.rejects(
      client.unary(unary, Buffer.alloc(0), { signal: never }),
      (error) => error instanceof StatusError && error.code === 'limit_exceeded',
    );
    client.close();
  });

  it('fails calls in progress and later ones when it is closed', async () => {
    await using echo = await startEcho();
    const call = textsOf(echo.client.bidi(bidi, thenWait(['x'], never), { signal: never }));
    const rejected = assert.rejects(call, AbortedError);
    await echo.client.unary(unary, Buffer.alloc(0), { signal: never });
    echo.client.close();
    await rejected;
    await assert.rejects(echo.client.unary(unary, Buffer.alloc(0), { signal: never }), AbortedError);
  });
});
