import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createGrpcClient } from '../../src/grpc/client.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { createProbe, type Probe } from '../support/probe.ts';
import { until } from '../support/process.ts';
import {
  checkPath,
  grpcFrame,
  http2Frame,
  http2Preface,
  openRawSession,
  type RawAnswer,
  type RawCall,
  writeRaw,
} from '../support/raw-grpc.ts';
import { answerOf, type Caller, http, startCaller } from './caller.ts';
import { hostileCases } from './hostile-cases.ts';
import { allowed } from './world.ts';

const request = messageCodec('envoy.service.auth.v3.CheckRequest');
const mebibyte = 1 << 20;
const never = new AbortController().signal;
const good = { source: { principal: allowed }, request: { http } };
/** Under a policy that lets everybody pass, what is refused is refused by us. */
const permissive = 'package envoy.authz\n\nallow := true\n';
/** A hundred times what one of these takes on a machine that has nothing else to do. */
const slowMs = 5_000;

async function start(t: TestContext): Promise<Caller & { probe: Probe }> {
  const probe = await createProbe(t);
  const options = { rego: permissive, timeout: '10s', config: { decision_log: { console: true } } };
  const caller = await startCaller(t, {}, { ...options, process: probe.with });
  for (let i = 0; i < 50; i++) assert.equal((await caller.check(good)).http, 'OK');
  return { ...caller, probe };
}

/** An SDS stream that is open all the while; at the end it still answers. */
async function watchSds(t: TestContext, { sidecar }: Caller): Promise<() => Promise<void>> {
  const client = createGrpcClient({
    target: { kind: 'unix', path: sidecar.socket },
    maxMessageBytes: mebibyte,
  });
  t.after(() => client.close());
  const typeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';
  const ask = (names: string[], responseNonce = '', versionInfo = ''): Buffer =>
    messageCodec('envoy.service.discovery.v3.DiscoveryRequest').encode({
      node: { id: 'watcher' },
      resourceNames: names,
      typeUrl,
      responseNonce,
      versionInfo,
    });
  const second = Promise.withResolvers<Buffer>();
  async function* asked(): AsyncGenerator<Buffer> {
    yield ask(['default']);
    yield await second.promise;
    await new Promise(() => {});
  }
  const path = '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';
  const answers = client.bidi(path, asked(), { signal: never })[Symbol.asyncIterator]();
  const next = async () => {
    const { value } = (await answers.next()) as { value?: Buffer };
    assert.ok(value !== undefined, 'the SDS stream has ended');
    return messageCodec('envoy.service.discovery.v3.DiscoveryResponse').decode(value);
  };
  const { nonce, versionInfo } = await next();
  return async () => {
    second.resolve(ask(['default', 'ROOTCA'], nonce, versionInfo));
    assert.equal((await next()).resources.length, 2);
  };
}

/** Looks at /live until the work is done; how long the slowest answer took, in milliseconds. */
async function liveBeside({ sidecar }: Caller, work: Promise<unknown>): Promise<number> {
  const over = new AbortController();
  const done = work.finally(() => over.abort());
  let slowest = 0;
  while (!over.signal.aborted) {
    const startedAt = performance.now();
    assert.equal((await sidecar.admin('/live')).status, 200);
    slowest = Math.max(slowest, performance.now() - startedAt);
  }
  await done;
  return slowest;
}

/** HTTP/2 and gRPC as no library would speak it; each is answered with an error or a reset, never with a decision. */
const brokenCalls: Readonly<Record<string, RawCall>> = {
  'no message': {},
  'half a frame head': { chunks: [Buffer.from([0, 0, 0])] },
  'less than the frame says': { chunks: [grpcFrame(Buffer.alloc(10), { length: 100 })] },
  'a frame of 2 GiB': { chunks: [grpcFrame(Buffer.alloc(10), { length: 0x7fff_ffff })] },
  'a frame of 4 GiB, never ended': {
    chunks: [grpcFrame(Buffer.alloc(10), { length: 0xffff_ffff })],
    open: true,
  },
  'compressed by nothing': { chunks: [grpcFrame(Buffer.alloc(10), { flag: 1 })] },
  'gzip that is none': {
    headers: { 'grpc-encoding': 'gzip' },
    chunks: [grpcFrame(Buffer.from('no gzip'), { flag: 1 })],
  },
  'gzip that breaks off': {
    headers: { 'grpc-encoding': 'gzip' },
    chunks: [grpcFrame(gzipSync(Buffer.alloc(10_000)).subarray(0, 20), { flag: 1 })],
  },
  'gzip of 1 GiB in 1 MiB': {
    headers: { 'grpc-encoding': 'gzip' },
    chunks: [grpcFrame(gzipBomb(), { flag: 1 })],
  },
  'an unknown compression': {
    headers: { 'grpc-encoding': 'rot13' },
    chunks: [grpcFrame(Buffer.alloc(10), { flag: 1 })],
  },
  'two messages': { chunks: [grpcFrame(Buffer.alloc(0)), grpcFrame(Buffer.alloc(0))] },
  'another method': { headers: { ':path': `${checkPath}Not` } },
  'another content type': { headers: { 'content-type': 'text/html' } },
  'headers of 60 kB': {
    headers: Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`h${i}`, 'v'.repeat(1_000)])),
  },
};

/** What is not HTTP/2, or is its letter only. */
function brokenConnections(): Readonly<Record<string, readonly Buffer[]>> {
  const opening = [http2Preface, http2Frame(4, 0, 0)];
  const many = (frame: Buffer<ArrayBuffer>, count: number) =>
    Buffer.concat(Array.from({ length: count }, () => frame));
  // A literal header field without a name in the table: 0x00, then name and value with their lengths (RFC 7541 6.2.2).
  const literal = (name: string, value: string) =>
    Buffer.concat([
      Buffer.from([0, name.length]),
      Buffer.from(name),
      Buffer.from([value.length]),
      Buffer.from(value),
    ]);
  const post = Buffer.concat([
    literal(':method', 'POST'),
    literal(':path', checkPath),
    literal(':scheme', 'http'),
    literal(':authority', 'a'),
    literal('content-type', 'application/grpc'),
  ]);
  const stream = (id: number, block: Buffer<ArrayBuffer>, flags = 4) => http2Frame(1, flags, id, block);
  return {
    'HTTP/1.1': [Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')],
    'a preface and nothing more': [http2Preface.subarray(0, 10)],
    noise: [Buffer.alloc(100_000, 0xa5)],
    'noise behind a good opening': [...opening, Buffer.alloc(100_000, 0xa5)],
    'headers that are no HPACK': [...opening, stream(1, Buffer.alloc(1_000, 0xff))],
    'a header name with a space': [...opening, stream(1, Buffer.concat([post, literal('a b', 'c')]))],
    'a header name in upper case': [...opening, stream(1, Buffer.concat([post, literal('ABC', 'c')]))],
    'no path': [...opening, stream(1, literal(':method', 'POST'))],
    'a frame longer than allowed': [...opening, http2Frame(0, 0, 1, Buffer.alloc(100_000))],
    'data on no stream': [...opening, http2Frame(0, 1, 0, grpcFrame(Buffer.alloc(0)))],
    'a header block that never ends': [
      ...opening,
      stream(1, post, 0),
      many(http2Frame(9, 0, 1, literal('a', 'b')), 50_000),
    ],
    '50 000 pings': [...opening, many(http2Frame(6, 0, 0, Buffer.alloc(8)), 50_000)],
    '50 000 settings': [...opening, many(http2Frame(4, 0, 0, Buffer.from([0, 4, 0, 0, 255, 255])), 50_000)],
    'a window beyond its bound': [
      ...opening,
      many(http2Frame(8, 0, 0, Buffer.from([0x7f, 255, 255, 255])), 2),
    ],
    '20 000 streams at once': [
      ...opening,
      ...Array.from({ length: 20_000 }, (_, i) => stream(2 * i + 1, post)),
    ],
    '20 000 streams reset at once': [
      ...opening,
      ...Array.from({ length: 20_000 }, (_, i) =>
        Buffer.concat([stream(2 * i + 1, post), http2Frame(3, 0, 2 * i + 1, Buffer.from([0, 0, 0, 8]))]),
      ),
    ],
  };
}

/** 1 GiB of zeros: gzip members may follow one another. */
function gzipBomb(): Buffer {
  const member = gzipSync(Buffer.alloc(64 * mebibyte));
  return Buffer.concat(Array.from({ length: 16 }, () => member));
}

test('hostile Checks are answered in bounded time and leave nothing behind, and what is malformed is 400 although the policy lets everybody pass', async (t) => {
  const caller = await start(t);
  const { check, send, probe } = caller;
  const sdsAnswers = await watchSds(t, caller);
  const cases = hostileCases().map(([name, expected, attributes]) => ({
    name,
    expected,
    bytes: request.encode({ attributes }),
  }));
  const before = await probe.look('settled');
  let costliest = { name: '', cpuMs: 0 };
  for (const { name, expected, bytes } of cases) {
    const { cpuMs: from } = await probe.look();
    const { http: answer } = answerOf(await send(bytes));
    const cpuMs = (await probe.look()).cpuMs - from;
    if (cpuMs > costliest.cpuMs) costliest = { name, cpuMs };
    assert.ok(cpuMs < slowMs, `${name} took ${cpuMs.toFixed(0)} ms`);
    const wanted = { malformed: 'BadRequest', judged: 'OK', refused: 'Forbidden' };
    assert.equal(answer, wanted[expected], name);
    assert.equal((await check(good)).http, 'OK', name);
  }
  t.diagnostic(`costliest: ${costliest.name}, ${costliest.cpuMs.toFixed(0)} ms of the main thread`);

  // All of them at once, twice over.
  const slowest = await liveBeside(
    caller,
    Promise.allSettled([...cases, ...cases].map(({ bytes }) => send(bytes))),
  );
  t.diagnostic(`/live beside all of them: ${slowest.toFixed(0)} ms at most`);
  assert.ok(slowest < slowMs, `/live took ${slowest.toFixed(0)} ms`);
  await sdsAnswers();
  assert.equal((await check(good)).http, 'OK');
  const after = await probe.look('settled');
  assert.equal(after.threads, before.threads);
  assert.ok(after.memory.heapUsed - before.memory.heapUsed < 32 * mebibyte, 'heap');
  assert.ok(
    after.memory.arrayBuffers - before.memory.arrayBuffers < 32 * mebibyte,
    'memory outside the heap',
  );
});

test('what no gRPC library would send ends its call or its connection and nothing else', async (t) => {
  const caller = await start(t);
  const { check, probe, sidecar } = caller;
  const sdsAnswers = await watchSds(t, caller);
  const before = await probe.look('settled');
  for (const [name, call] of Object.entries(brokenCalls)) {
    const session = await openRawSession(sidecar.socket);
    const ending = session.call(call);
    const answer: RawAnswer | undefined = await Promise.race([
      ending,
      sleep(2_000, never).then(() => undefined),
    ]);
    session.destroy();
    const decided = answer?.grpcStatus === 0 ? answerOf(answer.body.subarray(5)).http : undefined;
    assert.notEqual(decided, 'OK', name);
    assert.equal((await check(good)).http, 'OK', name);
  }
  for (const [name, bytes] of Object.entries(brokenConnections())) {
    const { cpuMs: from } = await probe.look();
    await writeRaw(sidecar.socket, bytes, 500);
    const cpuMs = (await probe.look()).cpuMs - from;
    assert.ok(cpuMs < slowMs, `${name} took ${cpuMs.toFixed(0)} ms`);
    assert.equal((await check(good)).http, 'OK', name);
  }
  await sdsAnswers();
  const after = await probe.look('settled');
  assert.equal(after.threads, before.threads);
  assert.equal(after.fds, before.fds, 'file descriptors');
});

test('a thousand Checks that are begun and never sent to the end hold up nobody, and go with their connection', async (t) => {
  const caller = await start(t);
  const { check, probe, sidecar } = caller;
  const before = await probe.look('settled');
  const session = await openRawSession(sidecar.socket);
  const part = grpcFrame(Buffer.alloc(60_000), { length: 4 * mebibyte });
  const endings = Array.from({ length: 1_000 }, () => session.call({ chunks: [part], open: true }));
  const during = await liveBeside(
    caller,
    Promise.all(
      Array.from({ length: 200 }, () => check(good).then((answer) => assert.equal(answer.http, 'OK'))),
    ),
  );
  assert.ok(during < slowMs, `/live took ${during.toFixed(0)} ms`);
  session.destroy();
  for (const { grpcStatus } of await Promise.all(endings)) assert.notEqual(grpcStatus, 0);
  await until('the memory to be given back', async () => {
    const { memory, fds } = await probe.look('settled');
    const grown = memory.heapUsed + memory.arrayBuffers - before.memory.heapUsed - before.memory.arrayBuffers;
    return grown < 16 * mebibyte && fds === before.fds ? true : undefined;
  });
  assert.equal((await check(good)).http, 'OK');
});
