import assert from 'node:assert/strict';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { createGrpcClient } from '../../../src/grpc/client.ts';
import { createGrpcServer } from '../../../src/grpc/server.ts';
import type { Service } from '../../../src/grpc/service.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { aborted } from '../../../src/runtime/abort.ts';
import { AbortedError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { type LogFields, silentLogger } from '../../../src/runtime/log.ts';
import { type CallContext, deferred, echoService, never, startEcho, textsOf, thenWait } from './echo.ts';

const unary = '/test.Echo/Unary';
const stream = '/test.Echo/Stream';
const bidi = '/test.Echo/Bidi';

function status(code: number, details?: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(error.status, code, error.message);
    if (details !== undefined) assert.equal(error.details, details);
    return true;
  };
}

describe('a gRPC server', () => {
  it('answers all three kinds of method over a unix socket', async () => {
    await using echo = await startEcho();
    assert.equal((await echo.client.unary(unary, Buffer.from('a'), { signal: never })).toString(), 'a');
    assert.deepEqual(await textsOf(echo.client.serverStream(stream, Buffer.from('b'), { signal: never })), [
      'b1',
      'b2',
      'b3',
    ]);
    const requests = thenWait(['c', 'd'], AbortSignal.abort());
    assert.deepEqual(await textsOf(echo.client.bidi(bidi, requests, { signal: never })), ['c', 'd']);
  });

  it('answers over TCP, on a port the system picked, and says which', async () => {
    const server = createGrpcServer({ services: [echoService()], log: silentLogger });
    const { address, port } = await server.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    assert.equal(address, `tcp://127.0.0.1:${port}`);
    const target = { kind: 'tcp', host: '127.0.0.1', port: port ?? 0 } as const;
    const client = createGrpcClient({ target, maxMessageBytes: 1024 });
    assert.equal((await client.unary(unary, Buffer.from('tcp'), { signal: never })).toString(), 'tcp');
    client.close();
    await server.shutdown(1000);
  });

  it('shows a handler metadata, deadline and peer', async () => {
    const seen = deferred<CallContext>();
    await using echo = await startEcho({
      unary: async (request, call) => {
        seen.resolve(call);
        return request;
      },
    });
    const before = Date.now();
    const metadata = { 'workload.spiffe.io': 'true' };
    await echo.client.unary(unary, Buffer.alloc(0), { signal: never, metadata, timeoutMs: 60_000 });
    const call = await seen.promise;
    assert.deepEqual(call.metadata('workload.spiffe.io'), ['true']);
    assert.deepEqual(call.metadata('absent'), []);
    assert.ok(
      call.deadline !== undefined && call.deadline > before + 50_000 && call.deadline < before + 70_000,
    );
    assert.equal(call.peer, '');
    assert.equal(call.signal.aborted, true, 'a signal asked for after the call is over has fired');
  });

  it('keeps a connection whose client gives up any number of calls', async () => {
    const started: Buffer[] = [];
    const release = deferred<void>();
    await using echo = await startEcho({
      unary: async (request, call) => {
        started.push(request);
        await (request.length === 0 ? aborted(call.signal) : release.promise);
        return request;
      },
    });
    const patient = echo.client.unary(unary, Buffer.from('patient'), { signal: never });
    // Node's own limit ends a connection at the 1000th, and every call on it.
    for (let round = 1; round <= 15; round++) {
      const giveUp = new AbortController();
      const calls = Array.from({ length: 100 }, () =>
        echo.client.unary(unary, Buffer.alloc(0), { signal: giveUp.signal }),
      );
      while (started.length < round * 100 + 1) await Promise.race([patient, setImmediate()]);
      giveUp.abort();
      await Promise.allSettled(calls);
    }
    release.resolve();
    assert.equal((await patient).toString(), 'patient');
  });

  it('has no deadline where the caller set none', async () => {
    await using echo = await startEcho({ unary: async (_, call) => Buffer.from(String(call.deadline)) });
    assert.equal(
      (await echo.client.unary(unary, Buffer.alloc(0), { signal: never })).toString(),
      'undefined',
    );
  });

  it('tells errors of handlers, and of unknown ones nothing', async () => {
    const logged: LogFields[] = [];
    const log = { ...silentLogger, error: (fields: LogFields) => logged.push(fields) };
    const fail = (request: Buffer): Error => {
      if (request.toString() === 'limit') return new LimitError('too much');
      if (request.toString() === 'status') return new StatusError(Status.FAILED_PRECONDITION, 'not now');
      return new Error('s3cret');
    };
    const handlers = {
      unary: async (request: Buffer) => {
        throw fail(request);
      },
      // oxlint-disable-next-line require-yield -- it fails before
      async *stream(request: Buffer): AsyncIterable<Buffer> {
        throw fail(request);
      },
    };
    await using echo = await startEcho(handlers, { log });
    for (const [text, code, details] of [
      ['limit', Status.RESOURCE_EXHAUSTED, 'too much'],
      ['status', Status.FAILED_PRECONDITION, 'not now'],
      ['other', Status.INTERNAL, 'internal error'],
    ] as const) {
      const request = Buffer.from(text);
      await assert.rejects(echo.client.unary(unary, request, { signal: never }), status(code, details));
      await assert.rejects(
        textsOf(echo.client.serverStream(stream, request, { signal: never })),
        status(code, details),
      );
    }
    assert.equal(logged.length, 2);
    assert.deepEqual(logged[0], { method: unary, error: 's3cret' });
  });

  it('tells a caller that its request is malformed, and hides that an answer is', async () => {
    const codec = {
      decode(bytes: Buffer) {
        if (bytes.length === 0) throw new MalformedError('not a request');
        return bytes;
      },
      encode(): Buffer {
        throw new Error('s3cret');
      },
    };
    const services: Service[] = [
      {
        name: 'test.Codec',
        methods: {
          Unary: { ...codec, kind: 'unary', handle: async (request) => request },
          Stream: { ...codec, kind: 'server_stream', handle: (request) => one(request) },
          Bidi: { ...codec, kind: 'bidi', handle: (requests) => requests },
        },
      },
    ];
    await using echo = await startEcho({}, { services });
    for (const [size, code, details] of [
      [0, Status.INVALID_ARGUMENT, 'not a request'],
      [1, Status.INTERNAL, 'internal error'],
    ] as const) {
      const request = Buffer.alloc(size);
      const calls = [
        echo.client.unary('/test.Codec/Unary', request, { signal: never }),
        textsOf(echo.client.serverStream('/test.Codec/Stream', request, { signal: never })),
        textsOf(echo.client.bidi('/test.Codec/Bidi', one(request), { signal: never })),
      ];
      for (const call of calls) await assert.rejects(call, status(code, details));
    }
  });

  it('tells an error that comes after some answers', async () => {
    await using echo = await startEcho({
      async *bidi(requests) {
        for await (const request of requests) {
          if (request.toString() === 'bad') throw new StatusError(Status.INVALID_ARGUMENT, 'unknown name');
          yield request;
        }
      },
    });
    const got: string[] = [];
    await assert.rejects(
      async () => {
        for await (const message of echo.client.bidi(bidi, thenWait(['ok', 'bad'], never), {
          signal: never,
        })) {
          got.push(message.toString());
        }
      },
      status(Status.INVALID_ARGUMENT, 'unknown name'),
    );
    assert.deepEqual(got, ['ok']);
  });

  it('fires the signal of a handler when its caller cancels', async () => {
    for (const kind of ['unary', 'stream', 'bidi'] as const) {
      const started = deferred<void>();
      const stopped = deferred<void>();
      async function untilStopped(call: CallContext): Promise<void> {
        started.resolve();
        for await (const _ of thenWait([], call.signal)) assert.fail();
        stopped.resolve();
      }
      async function* answers(call: CallContext): AsyncIterable<Buffer> {
        await untilStopped(call);
        yield Buffer.from('to nobody');
      }
      await using echo = await startEcho({
        unary: async (request, call) => {
          await untilStopped(call);
          return request;
        },
        stream: (_, call) => answers(call),
        bidi: (_, call) => answers(call),
      });
      const abort = new AbortController();
      const options = { signal: abort.signal };
      const call = {
        unary: () => echo.client.unary(unary, Buffer.alloc(0), options),
        stream: () => textsOf(echo.client.serverStream(stream, Buffer.alloc(0), options)),
        bidi: () => textsOf(echo.client.bidi(bidi, thenWait(['x'], never), options)),
      }[kind]();
      const rejected = assert.rejects(call, AbortedError);
      await started.promise;
      abort.abort();
      await rejected;
      await stopped.promise;
    }
  });

  it('fires the signal of a handler when the deadline of its caller passes', async () => {
    const stopped = deferred<void>();
    await using echo = await startEcho({
      unary: async (request, call) => {
        for await (const _ of thenWait([], call.signal)) assert.fail();
        stopped.resolve();
        return request;
      },
    });
    const call = echo.client.unary(unary, Buffer.alloc(0), { signal: never, timeoutMs: 50 });
    await assert.rejects(call, status(Status.DEADLINE_EXCEEDED));
    await stopped.promise;
  });

  it('ends the requests of a handler with AbortedError, never as if they were complete, when its caller goes', async () => {
    const ended = deferred<unknown>();
    await using echo = await startEcho({
      async *bidi(requests) {
        try {
          for await (const request of requests) yield request;
          ended.resolve('complete');
        } catch (error) {
          ended.resolve(error);
          throw error;
        }
      },
    });
    for await (const message of echo.client.bidi(bidi, thenWait(['first'], never), { signal: never })) {
      assert.equal(message.toString(), 'first');
      break;
    }
    assert.ok((await ended.promise) instanceof AbortedError);
  });

  it('lets a handler answer on after the caller has sent all its requests', async () => {
    await using echo = await startEcho({
      async *bidi(requests) {
        const all = await textsOf(requests);
        for (const text of all.reverse()) yield Buffer.from(text);
      },
    });
    const requests = thenWait(['1', '2', '3'], AbortSignal.abort());
    assert.deepEqual(await textsOf(echo.client.bidi(bidi, requests, { signal: never })), ['3', '2', '1']);
  });

  it('lets a handler end a stream without reading its requests', async () => {
    await using echo = await startEcho({
      async *bidi() {
        yield Buffer.from('done');
      },
    });
    const requests = thenWait(['1', '2', '3'], never);
    assert.deepEqual(await textsOf(echo.client.bidi(bidi, requests, { signal: never })), ['done']);
  });

  it('takes no more answers from a handler than its caller reads', async () => {
    let made = 0;
    const cancelled = deferred<void>();
    await using echo = await startEcho({
      async *stream(_, call) {
        call.signal.addEventListener('abort', () => cancelled.resolve());
        for (; made < 1000; made++) yield Buffer.alloc(256 * 1024);
      },
    });
    for await (const message of echo.client.serverStream(stream, Buffer.alloc(0), { signal: never })) {
      assert.equal(message.length, 256 * 1024);
      // The reader stays away until nothing moves any more.
      for (let before = -1; before !== made; ) {
        before = made;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      break;
    }
    await cancelled.promise;
    assert.ok(made < 100, `${made} answers were made`);
  });

  it('refuses a message that is larger than the limit, and goes on', async () => {
    await using echo = await startEcho({}, { maxMessageBytes: 1000 });
    await echo.client.unary(unary, Buffer.alloc(1000), { signal: never });
    for (const call of [
      echo.client.unary(unary, Buffer.alloc(1001), { signal: never }),
      textsOf(echo.client.bidi(bidi, one(Buffer.alloc(1001)), { signal: never })),
    ]) {
      await assert.rejects(call, status(Status.RESOURCE_EXHAUSTED));
    }
    await echo.client.unary(unary, Buffer.alloc(1000), { signal: never });
  });

  it('refuses a small message that unpacks to one larger than the limit', async () => {
    await using echo = await startEcho({}, { maxMessageBytes: 10_000 });
    const packed = gzipSync(Buffer.alloc(10_000_000));
    assert.ok(packed.length < 10_000);
    const head = Buffer.from([1, 0, 0, 0, 0]);
    head.writeUInt32BE(packed.length, 1);
    const answer = await rawCall(echo.address, unary, Buffer.concat([head, packed]), {
      'grpc-encoding': 'gzip',
    });
    assert.equal(answer['grpc-status'], String(Status.RESOURCE_EXHAUSTED));
  });

  it('survives garbage in place of HTTP/2, gRPC framing, messages and headers', async () => {
    await using echo = await startEcho();
    assert.ok(echo.address.kind === 'unix');
    for (const garbage of [
      'GET / HTTP/1.1\r\n\r\n',
      Buffer.alloc(70_000, 0xff),
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff',
    ]) {
      const socket = connect(echo.address.path);
      socket.on('error', () => {});
      socket.end(garbage);
      socket.resume();
      await new Promise((resolve) => socket.once('close', resolve));
    }
    for (const [path, body, headers] of [
      [unary, Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]), {}],
      [unary, Buffer.from([1, 0, 0, 0, 3, 1, 2, 3]), { 'grpc-encoding': 'gzip' }],
      [unary, Buffer.from([1, 0, 0, 0, 3, 1, 2, 3]), { 'grpc-encoding': 'nonsense' }],
      [unary, Buffer.from([0, 0, 0]), {}],
      [unary, Buffer.alloc(0), {}],
      [unary, Buffer.alloc(20), {}],
      [unary, Buffer.alloc(5), { 'grpc-timeout': 'soon' }],
      [unary, Buffer.alloc(5), { 'grpc-timeout': '99999999H' }],
      [unary, Buffer.alloc(5), { 'x-bin': '%%%' }],
      [unary, Buffer.alloc(5), { 'content-type': 'text/plain' }],
      ['/test.Echo/Nothing', Buffer.alloc(5), {}],
      ['/\u00ff\u00fe', Buffer.alloc(5), {}],
      ['*', Buffer.alloc(5), {}],
      [`/${'x'.repeat(10_000)}`, Buffer.alloc(5), {}],
      [bidi, Buffer.from([0, 0xff, 0xff, 0xff, 0xff]), {}],
    ] as const) {
      await rawCall(echo.address, path, body, headers).catch(() => ({}));
    }
    assert.equal(
      (await echo.client.unary(unary, Buffer.from('alive'), { signal: never })).toString(),
      'alive',
    );
  });

  it('takes any :authority', async () => {
    await using echo = await startEcho();
    for (const authority of ['localhost', 'sds_cluster', '%2Frun%2Fsvidecar.sock', 'example.org:443']) {
      const answer = await rawCall(echo.address, unary, Buffer.alloc(5), { ':authority': authority });
      assert.equal(answer['grpc-status'], '0', authority);
    }
  });

  it('carries a thousand streams of one client at once', async () => {
    let open = 0;
    const all = deferred<void>();
    await using echo = await startEcho({
      async *bidi(requests, call) {
        open += 1;
        if (open === 1000) all.resolve();
        for await (const request of requests) yield request;
        assert.equal(call.signal.aborted, false);
      },
    });
    const done = new AbortController();
    const calls = Array.from({ length: 1000 }, async (_, n) =>
      textsOf(echo.client.bidi(bidi, thenWait([`stream ${n}`], done.signal), { signal: never })),
    );
    await all.promise;
    done.abort();
    const texts = await Promise.all(calls);
    assert.deepEqual(texts[999], ['stream 999']);
    assert.ok(texts.every((t) => t.length === 1));
  });

  it('serves no more streams on one connection than its bound', async () => {
    let open = 0;
    let most = 0;
    await using echo = await startEcho(
      {
        async *bidi(requests) {
          open += 1;
          most = Math.max(most, open);
          for await (const request of requests) yield request;
          open -= 1;
        },
      },
      { maxStreamsPerConnection: 10 },
    );
    const calls = Array.from({ length: 50 }, () =>
      textsOf(echo.client.bidi(bidi, one(Buffer.from('x')), { signal: never })),
    );
    await Promise.all(calls);
    assert.ok(most <= 10, `${most} at once`);
  });

  it('closes connections beyond its bound', async () => {
    await using echo = await startEcho({}, { maxConnections: 1 });
    await echo.client.unary(unary, Buffer.from('first'), { signal: never });
    const second = createGrpcClient({ target: echo.address, maxMessageBytes: 1024 });
    await assert.rejects(second.unary(unary, Buffer.alloc(0), { signal: never }), status(Status.UNAVAILABLE));
    second.close();
  });

  it('refuses two services with the same method', () => {
    assert.throws(() => createGrpcServer({ services: [echoService(), echoService()], log: silentLogger }));
  });
});

describe('shutdown', () => {
  it('lets a unary call finish, and takes no new ones', async () => {
    const started = deferred<void>();
    const finish = deferred<void>();
    await using echo = await startEcho({
      unary: async (request) => {
        started.resolve();
        await finish.promise;
        return request;
      },
    });
    const call = echo.client.unary(unary, Buffer.from('slow'), { signal: never });
    await started.promise;
    const stopped = echo.server.shutdown(10_000);
    const other = createGrpcClient({ target: echo.address, maxMessageBytes: 1024 });
    await assert.rejects(other.unary(unary, Buffer.alloc(0), { signal: never }), status(Status.UNAVAILABLE));
    other.close();
    await assert.rejects(echo.server.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }), AbortedError);
    finish.resolve();
    assert.equal((await call).toString(), 'slow');
    await stopped;
  });

  it('ends streams at once, telling their callers to come back', async () => {
    await using echo = await startEcho();
    const call = textsOf(echo.client.bidi(bidi, thenWait([], never), { signal: never }));
    const heard = echo.client.serverStream(stream, Buffer.alloc(0), { signal: never });
    await textsOf(heard);
    const rejected = assert.rejects(call, status(Status.UNAVAILABLE, 'server is shutting down'));
    await echo.server.shutdown(60_000);
    await rejected;
  });

  it('cuts what has not finished in time and fires its signal', async () => {
    const started = deferred<AbortSignal>();
    await using echo = await startEcho({
      unary: (_, call) => {
        started.resolve(call.signal);
        return new Promise(() => {});
      },
    });
    const call = echo.client.unary(unary, Buffer.alloc(0), { signal: never });
    const rejected = assert.rejects(call, StatusError);
    const signal = await started.promise;
    await echo.server.shutdown(10);
    await rejected;
    for await (const _ of thenWait([], signal)) assert.fail();
  });

  it('may be called twice', async () => {
    await using echo = await startEcho();
    await Promise.all([echo.server.shutdown(10), echo.server.shutdown(10)]);
  });
});

async function* one(message: Buffer): AsyncIterable<Buffer> {
  yield message;
}

/** One call over plain HTTP/2: what the server answered, headers and trailers in one. */
function rawCall(
  address: Parameters<typeof createGrpcClient>[0]['target'],
  path: string,
  body: Buffer,
  headers: Record<string, string>,
): Promise<Record<string, unknown>> {
  assert.ok(address.kind === 'unix');
  const session = connectHttp2('http://localhost', { createConnection: () => connect(address.path) });
  return new Promise<Record<string, unknown>>((resolve, reject) => {
    session.on('error', reject);
    const request = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    const answer: Record<string, unknown> = {};
    request.on('response', (received) => Object.assign(answer, received));
    request.on('trailers', (received) => Object.assign(answer, received));
    request.on('error', reject);
    request.on('close', () => resolve(answer));
    request.resume();
    request.end(body);
  }).finally(() => session.destroy());
}
