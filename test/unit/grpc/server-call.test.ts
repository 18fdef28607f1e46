import assert from 'node:assert/strict';
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { frameOf } from '../../../src/grpc/framing.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { deferred, startEcho } from './echo.ts';

const unary = '/test.Echo/Unary';
const bidi = '/test.Echo/Bidi';

type Answer = { headers: Record<string, unknown>; trailers: Record<string, unknown>; body: Buffer };

/** Calls without a gRPC library: what the server puts on the wire. */
async function openSession(
  echo: Awaited<ReturnType<typeof startEcho>>,
): Promise<{ session: ClientHttp2Session } & AsyncDisposable> {
  const { address } = echo;
  assert.ok(address.kind === 'unix');
  const session = connectHttp2('http://localhost', { createConnection: () => connect(address.path) });
  session.on('error', () => {});
  return { session, [Symbol.asyncDispose]: async () => session.destroy() };
}

const post = { ':method': 'POST', ':path': unary, 'content-type': 'application/grpc', te: 'trailers' };

async function call(
  session: ClientHttp2Session,
  chunks: readonly Buffer[],
  headers: Record<string, string> = {},
): Promise<Answer> {
  return answerTo(session, chunks, headers, true);
}

/** One whose caller never says that it has said all. */
async function unfinishedCall(
  session: ClientHttp2Session,
  chunks: readonly Buffer[],
  headers: Record<string, string> = {},
): Promise<Answer> {
  return answerTo(session, chunks, headers, false);
}

function answerTo(
  session: ClientHttp2Session,
  chunks: readonly Buffer[],
  headers: Record<string, string>,
  complete: boolean,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = session.request({ ...post, ...headers });
    const answer: Answer = { headers: {}, trailers: {}, body: Buffer.alloc(0) };
    request.on('response', (received) => Object.assign(answer.headers, received));
    request.on('trailers', (received) => Object.assign(answer.trailers, received));
    request.on('data', (chunk: Buffer) => {
      answer.body = Buffer.concat([answer.body, chunk]);
    });
    request.on('error', reject);
    request.on('close', () => resolve(answer));
    for (const chunk of chunks) request.write(chunk);
    if (complete) request.end();
  });
}

describe('a call on the wire', () => {
  it('is answered with headers, a frame and trailers', async () => {
    await using echo = await startEcho();
    await using client = await openSession(echo);
    const { headers, trailers, body } = await call(client.session, [frameOf(Buffer.from('hello'))]);
    assert.equal(headers[':status'], 200);
    assert.equal(headers['content-type'], 'application/grpc');
    assert.equal(headers['grpc-accept-encoding'], 'identity,deflate,gzip');
    assert.equal(headers['grpc-status'], undefined);
    assert.deepEqual(Object.entries(trailers), [['grpc-status', '0']]);
    assert.deepEqual(body, frameOf(Buffer.from('hello')));
  });

  it('may come in any pieces, compressed or not', async () => {
    await using echo = await startEcho();
    await using client = await openSession(echo);
    const message = Buffer.from('in pieces');
    const bytes = Array.from(frameOf(message), (byte) => Buffer.from([byte]));
    assert.deepEqual((await call(client.session, bytes)).body, frameOf(message));
    const packed = frameOf(gzipSync(message));
    packed[0] = 1;
    assert.deepEqual(
      (await call(client.session, [packed], { 'grpc-encoding': 'gzip' })).body,
      frameOf(message),
    );
  });

  it('may bring several messages in one piece where its method takes several', async () => {
    await using echo = await startEcho();
    await using client = await openSession(echo);
    const messages = Buffer.concat(['a', 'b', ''].map((text) => frameOf(Buffer.from(text))));
    const { body, trailers } = await call(client.session, [messages], { ':path': bidi });
    assert.deepEqual(body, messages);
    assert.equal(trailers['grpc-status'], '0');
  });

  it('ends with a status alone when it is not to be served', async () => {
    await using echo = await startEcho({}, { maxMessageBytes: 100 });
    await using client = await openSession(echo);
    const one = frameOf(Buffer.from('x'));
    const packed = Buffer.from([1, 0, 0, 0, 1, 0]);
    for (const [name, chunks, headers, status] of [
      ['no such method', [one], { ':path': '/test.Echo/Nothing' }, Status.UNIMPLEMENTED],
      ['no message', [], {}, Status.UNIMPLEMENTED],
      ['two messages', [one, one], {}, Status.UNIMPLEMENTED],
      ['half a message', [one.subarray(0, 5)], {}, Status.INTERNAL],
      ['half a prefix', [one.subarray(0, 3)], {}, Status.INTERNAL],
      ['half a message of several', [one.subarray(0, 5)], { ':path': bidi }, Status.INTERNAL],
      ['unknown flag', [Buffer.from([8, 0, 0, 0, 0])], {}, Status.INTERNAL],
      ['too long', [frameOf(Buffer.alloc(101))], {}, Status.RESOURCE_EXHAUSTED],
      ['unknown encoding', [packed], { 'grpc-encoding': 'br' }, Status.UNIMPLEMENTED],
      ['not compressed at all', [packed], { 'grpc-encoding': 'gzip' }, Status.INTERNAL],
      ['no encoding told', [packed], {}, Status.INTERNAL],
    ] as const) {
      const answer = await call(client.session, chunks, headers);
      assert.equal(answer.headers['grpc-status'], String(status), name);
      assert.equal(answer.headers[':status'], 200, name);
      assert.equal(answer.body.length, 0, name);
      assert.deepEqual(answer.trailers, {}, name);
    }
  });

  it('is refused by HTTP when it is no gRPC call', async () => {
    await using echo = await startEcho();
    await using client = await openSession(echo);
    for (const [headers, status] of [
      [{ ':method': 'PUT' }, 405],
      [{ 'content-type': 'application/json' }, 415],
      [{ 'content-type': 'application/grpcish' }, 415],
      [{ 'grpc-timeout': 'soon' }, 400],
      [{ 'grpc-timeout': '123456789S' }, 400],
    ] as const) {
      const answer = await call(client.session, [frameOf(Buffer.alloc(0))], headers);
      assert.equal(answer.headers[':status'], status, JSON.stringify(headers));
    }
    for (const type of ['application/grpc+proto', 'application/grpc;charset=utf-8']) {
      const answer = await call(client.session, [frameOf(Buffer.alloc(0))], { 'content-type': type });
      assert.equal(answer.trailers['grpc-status'], '0', type);
    }
  });

  it('tells details in percent encoding', async () => {
    await using echo = await startEcho({
      unary: async () => {
        throw new StatusError(Status.ABORTED, 'nö: 100 %\n');
      },
    });
    await using client = await openSession(echo);
    const { headers } = await call(client.session, [frameOf(Buffer.alloc(0))]);
    assert.equal(headers['grpc-message'], 'n%C3%B6:%20100%20%25%0A');
  });

  it('ends at its deadline, whatever its handler does', async () => {
    const answered = deferred<void>();
    await using echo = await startEcho({
      unary: async (request) => {
        await answered.promise;
        return request;
      },
    });
    await using client = await openSession(echo);
    for (const timeout of ['20m', '20000u', '1n']) {
      const { headers } = await call(client.session, [frameOf(Buffer.alloc(0))], { 'grpc-timeout': timeout });
      assert.equal(headers['grpc-status'], String(Status.DEADLINE_EXCEEDED), timeout);
    }
    answered.resolve();
    const long = await call(client.session, [frameOf(Buffer.alloc(0))], { 'grpc-timeout': '99999999H' });
    assert.equal(long.trailers['grpc-status'], '0');
  });

  it('is told GOAWAY when the server stops, and may still finish', async () => {
    const started = deferred<void>();
    const finish = deferred<void>();
    await using echo = await startEcho({
      unary: async (request) => {
        started.resolve();
        await finish.promise;
        return request;
      },
    });
    await using client = await openSession(echo);
    const goaway = new Promise<number>((resolve) => client.session.once('goaway', resolve));
    const answer = call(client.session, [frameOf(Buffer.from('late'))]);
    await started.promise;
    const stopped = echo.server.shutdown(10_000);
    assert.equal(await goaway, constants.NGHTTP2_NO_ERROR);
    finish.resolve();
    assert.equal((await answer).trailers['grpc-status'], '0');
    await stopped;
  });

  it('leaves nothing behind when it is reset at any moment, with any code', async () => {
    const running = { calls: 0 };
    await using echo = await startEcho({
      unary: async (request, { signal }) => {
        running.calls += 1;
        try {
          for (let turns = request[0] ?? 0; turns > 0 && !signal.aborted; turns--) await setImmediate();
          return Buffer.alloc(100_000);
        } finally {
          running.calls -= 1;
        }
      },
    });
    await using client = await openSession(echo);
    const codes = [constants.NGHTTP2_CANCEL, constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_INTERNAL_ERROR];
    for (let round = 0; round < 60; round++) {
      const resets = Array.from({ length: 10 }, async (_, n) => {
        const request = client.session.request({
          ':method': 'POST',
          ':path': n % 2 === 0 ? unary : bidi,
          'content-type': n === 9 ? 'text/plain' : 'application/grpc',
        });
        const closed = new Promise((resolve) => request.once('close', resolve));
        request.on('error', () => {});
        request.resume();
        request.write(frameOf(Buffer.from([round % 8])));
        if (n % 3 === 0) request.end();
        for (let turns = 0; turns < round % 7; turns++) await setImmediate();
        request.close(codes[n % codes.length]);
        await closed;
      });
      await Promise.all(resets);
    }
    assert.equal((await call(client.session, [frameOf(Buffer.from([0]))])).trailers['grpc-status'], '0');
    for (let turns = 0; running.calls > 0 && turns < 10_000; turns++) await setImmediate();
    assert.equal(running.calls, 0);
  });

  it('is ended when its one request does not come whole in time, and its stream is closed', async () => {
    await using echo = await startEcho({}, { requestTimeoutMs: 50 });
    await using client = await openSession(echo);
    const waiting = client.session.request({ ...post, ':path': bidi });
    waiting.on('error', () => {});
    waiting.write(frameOf(Buffer.from('half')).subarray(0, 7));
    for (const chunks of [[], [Buffer.from([0, 0])], [frameOf(Buffer.from('whole'))]]) {
      const answer = await unfinishedCall(client.session, chunks);
      assert.equal(answer.headers['grpc-status'], String(Status.DEADLINE_EXCEEDED));
    }
    // A call of many requests may take its time.
    waiting.end(frameOf(Buffer.from('half')).subarray(7));
    assert.deepEqual(Buffer.concat(await waiting.toArray()), frameOf(Buffer.from('half')));
  });

  it('makes room for newer ones when too much of unfinished requests is held, whatever their kind', async () => {
    await using echo = await startEcho({}, { maxUnfinishedBytes: 500_000, maxMessageBytes: 400_000 });
    await using client = await openSession(echo);
    const large = frameOf(Buffer.alloc(150_000));
    const refused: unknown[] = [];
    const enough = deferred<void>();
    const ended = [unary, bidi, unary, bidi, unary, bidi].map(async (path) => {
      const chunks = [path === unary ? large : large.subarray(0, -1)];
      const { headers } = await unfinishedCall(client.session, chunks, { ':path': path });
      refused.push(headers['grpc-status']);
      if (refused.length === 3) enough.resolve();
    });
    await enough.promise;
    assert.deepEqual(refused, Array(3).fill(String(Status.RESOURCE_EXHAUSTED)));
    const answer = await call(client.session, [large]);
    assert.equal(answer.trailers['grpc-status'], '0');
    client.session.destroy();
    await Promise.allSettled(ended);
    await using other = await openSession(echo);
    for (let n = 0; n < 10; n++) {
      assert.equal((await call(other.session, [large])).trailers['grpc-status'], '0');
    }
  });

  it('closes its stream with its status, though the caller had more to say', async () => {
    await using echo = await startEcho({
      async *bidi() {
        yield Buffer.from('enough');
      },
    });
    await using client = await openSession(echo);
    const one = frameOf(Buffer.alloc(0));
    const unknown = await unfinishedCall(client.session, [one], { ':path': '/test.Echo/Nothing' });
    assert.equal(unknown.headers['grpc-status'], String(Status.UNIMPLEMENTED));
    const refused = await unfinishedCall(client.session, [one], { 'content-type': 'text/plain' });
    assert.equal(refused.headers[':status'], 415);
    const told = await unfinishedCall(client.session, [one], { ':path': bidi });
    assert.equal(told.trailers['grpc-status'], '0');
    assert.deepEqual(told.body, frameOf(Buffer.from('enough')));
  });
});
