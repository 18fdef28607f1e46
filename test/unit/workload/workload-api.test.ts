import assert from 'node:assert/strict';
import { chmodSync, linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { AbortedError, AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { createJwtSigner, createX509Authority } from '../../../src/spiffe/authority.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import type { IdentitySource, WatchEvent } from '../../../src/workload/identity-source.ts';
import { createWorkloadApiSource } from '../../../src/workload/workload-api.ts';
import {
  type FakeScript,
  type FakeWorkloadApi,
  startFakeWorkloadApi,
} from '../../support/fake-workload-api.ts';

const trustDomain = parseTrustDomain('example.org');
const web = parseSpiffeId('spiffe://example.org/web');
const now = Date.now();
const ttlMs = 3_600_000;
const authority = await createX509Authority({ trustDomain, ttlMs, now });
const signer = await createJwtSigner();

async function x509Message() {
  const { chain, privateKey } = await authority.issue({ spiffeId: web, ttlMs, now });
  return {
    svids: [
      {
        spiffeId: web,
        x509Svid: chain[0].der,
        x509SvidKey: privateKey,
        bundle: authority.certificate.der,
        hint: '',
      },
    ],
  };
}
const good = await x509Message();
const goodBytes = messageCodec('X509SVIDResponse').encode(good);

describe('source over the Workload API', () => {
  let directory: string;
  let path: string;
  let stopping: AbortController;
  let fakes: FakeWorkloadApi[];
  let metered: string[];
  let warnings: string[];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'workload-'));
    chmodSync(directory, 0o755);
    path = join(directory, 'agent.sock');
    stopping = new AbortController();
    fakes = [];
    metered = [];
    warnings = [];
  });

  afterEach(() => {
    stopping.abort();
    for (const fake of fakes) fake.stop();
    rmSync(directory, { recursive: true });
  });

  async function start(script: FakeScript, target: { path: string } | { host: string } = { path }) {
    const fake = await startFakeWorkloadApi(target, script);
    fakes.push(fake);
    return fake;
  }

  function source(address = `unix://${path}`, answerTimeoutMs = 5_000): IdentitySource {
    return createWorkloadApiSource({
      address,
      answerTimeoutMs,
      // Waits are the watch's own test; here each retry comes at once, when the test asks for the next event.
      async sleep(_, signal) {
        await setImmediate();
        if (signal.aborted) throw new AbortedError();
      },
      random: Math.random,
      now: Date.now,
      log: { ...silentLogger, warn: (_, message) => warnings.push(message) },
      meter: {
        updated: (rpc) => metered.push(`${rpc} updated`),
        failed: (rpc, failure) => metered.push(`${rpc} ${failure}`),
        answered(rpc, seconds) {
          assert.ok(seconds >= 0 && seconds < 5);
          metered.push(`${rpc} answered`);
        },
      },
    });
  }

  function watchX509(address?: string, answerTimeoutMs?: number) {
    return source(address, answerTimeoutMs).watchX509(stopping.signal)[Symbol.asyncIterator]();
  }

  async function next<T>(events: AsyncIterator<WatchEvent<T>>): Promise<WatchEvent<T>> {
    const step = await events.next();
    assert.ok(step.done !== true, 'the watch has ended');
    return step.value;
  }

  async function expectUpdate(events: AsyncIterator<WatchEvent<{ svids: readonly { spiffeId: string }[] }>>) {
    const event = await next(events);
    assert.equal(event.kind, 'update', event.kind === 'update' ? '' : event.error.message);
    if (event.kind === 'update') assert.equal(event.value.svids[0]?.spiffeId, web);
  }

  async function expectFailed<T>(events: AsyncIterator<WatchEvent<T>>, message: RegExp, terminal = false) {
    const event = await next(events);
    assert.ok(event.kind === 'failed', event.kind);
    assert.match(event.error.message, message);
    assert.equal(event.terminal, terminal);
  }

  it('finds a socket that comes later, and says until then what is missing', async () => {
    const events = watchX509();
    await expectFailed(
      events,
      /agent\.sock does not exist \(ENOENT\): is the agent running.*directory mounted/,
    );
    await expectFailed(events, /ENOENT/);
    await start({ FetchX509SVID: ({ send }) => send(good) });
    await expectUpdate(events);
    assert.deepEqual(metered, [
      'fetch_x509_svid unreachable',
      'fetch_x509_svid unreachable',
      'fetch_x509_svid answered',
      'fetch_x509_svid updated',
    ]);
  });

  it('says that permissions are wrong when the socket may not be opened', async () => {
    await start({ FetchX509SVID: ({ send }) => send(good) });
    chmodSync(path, 0o000);
    const events = watchX509();
    // Root may open everything, so root steps down for this one.
    const root = process.getuid?.() === 0;
    if (root) process.seteuid?.(65_534);
    try {
      await expectFailed(
        events,
        /may not be opened by this process \(EACCES\): check owner, mode and SELinux/,
      );
    } finally {
      if (root) process.seteuid?.(0);
    }
    chmodSync(path, 0o600);
    await expectUpdate(events);
  });

  it('says that the path is a file or a directory where it should be a socket', async () => {
    writeFileSync(path, '');
    await expectFailed(watchX509(), /is a file, not a socket \(ECONNREFUSED\): check the address/);
    rmSync(path);
    mkdirSync(path);
    await expectFailed(watchX509(), /is a directory, not a socket/);
  });

  it('says to mount the directory when the socket is dead', async () => {
    const served = join(directory, 'served.sock');
    const server = createServer().listen(served);
    await new Promise((resolve) => server.once('listening', resolve));
    linkSync(served, path);
    server.close();
    await expectFailed(watchX509(), /nobody listens on .*\(ECONNREFUSED\).*mount the socket's directory/);
  });

  it('drops a malformed message and goes on with the same stream', async () => {
    const fake = await start({
      FetchX509SVID({ send, sendBytes }) {
        send(good);
        send({ svids: [] });
        sendBytes(Buffer.from('rubbish'));
        send(good);
      },
    });
    const events = watchX509();
    await expectUpdate(events);
    await expectFailed(events, /no X509-SVID/);
    await expectFailed(events, /not a valid X509SVIDResponse/);
    await expectUpdate(events);
    assert.equal(fake.calls('FetchX509SVID'), 1);
  });

  it('tells PERMISSION_DENIED as revoked, at the start and in the middle, and gets back in', async () => {
    await start({
      FetchX509SVID({ attempt, send, fail }) {
        if (attempt === 1) send(good);
        if (attempt < 2) fail('PERMISSION_DENIED', 'no identity issued');
        else send(good);
      },
    });
    const events = watchX509();
    const first = await next(events);
    assert.ok(first.kind === 'revoked');
    assert.match(first.error.message, /no identity .*registration entry/);
    assert.equal(first.error.code, 'permission_denied');
    await expectUpdate(events);
    assert.equal((await next(events)).kind, 'revoked');
    await expectUpdate(events);
  });

  it('does not call again after INVALID_ARGUMENT', async () => {
    const fake = await start({ FetchX509SVID: ({ fail }) => fail('INVALID_ARGUMENT', 'go away') });
    const events = watchX509();
    await expectFailed(events, /refused the request \("go away"\)/, true);
    assert.equal((await events.next()).done, true);
    assert.equal(fake.calls('FetchX509SVID'), 1);
  });

  it('gives up only the call that is UNIMPLEMENTED', async () => {
    await start({ FetchX509SVID: ({ send }) => send(good) });
    const api = source();
    const bundles = api.watchJwtBundles(stopping.signal)[Symbol.asyncIterator]();
    await expectFailed(bundles, /does not offer this call/, true);
    assert.equal((await bundles.next()).done, true);
    await expectUpdate(api.watchX509(stopping.signal)[Symbol.asyncIterator]());
  });

  for (const code of ['UNAVAILABLE', 'UNKNOWN', 'INTERNAL', 'CANCELLED', 'RESOURCE_EXHAUSTED'] as const) {
    it(`tries again after ${code}`, async () => {
      await start({
        FetchX509SVID: ({ attempt, fail, send }) => (attempt === 0 ? fail(code, 'not now') : send(good)),
      });
      const events = watchX509();
      await expectFailed(events, /not now/);
      await expectUpdate(events);
    });
  }

  it('opens the stream again when the server ends it', async () => {
    const fake = await start({
      FetchX509SVID({ attempt, send, end }) {
        send(good);
        if (attempt === 0) end();
      },
    });
    const events = watchX509();
    await expectUpdate(events);
    await expectFailed(events, /ended the stream/);
    await expectUpdate(events);
    assert.equal(fake.calls('FetchX509SVID'), 2);
  });

  it('finds the agent again after a restart under a new inode', async () => {
    const first = await start({ FetchX509SVID: ({ send }) => send(good) });
    const events = watchX509();
    await expectUpdate(events);
    first.stop();
    rmSync(path, { force: true });
    const second = await start({ FetchX509SVID: ({ send }) => send(good) });
    assert.equal((await next(events)).kind, 'failed');
    await expectUpdate(events);
    assert.equal(second.calls('FetchX509SVID'), 1);
  });

  it('works over tcp', async () => {
    const fake = await start({ FetchX509SVID: ({ send }) => send(good) }, { host: '127.0.0.1' });
    const events = watchX509(fake.address);
    await expectUpdate(events);
    fake.stop();
    assert.equal((await next(events)).kind, 'failed');
    await expectFailed(events, /cannot be reached \(ECONNREFUSED\)/);
  });

  it('takes messages beyond 4 MiB and refuses one beyond 16 MiB without giving up', async () => {
    // Field 15, which the message does not know, filled with that many bytes.
    const padded = (bytes: number) => {
      const length = [0, 7, 14, 21].map((shift) => ((bytes >> shift) & 0x7f) | (shift < 21 ? 0x80 : 0));
      return Buffer.concat([goodBytes, Buffer.from([0x7a, ...length]), Buffer.alloc(bytes)]);
    };
    await start({
      FetchX509SVID: ({ attempt, sendBytes }) => sendBytes(padded((attempt === 0 ? 17 : 5) * 1024 * 1024)),
    });
    const events = watchX509();
    await expectFailed(events, /RESOURCE_EXHAUSTED/);
    await expectUpdate(events);
  });

  it('gives up on an answer that never comes, and calls again', async () => {
    await start({
      FetchX509SVID({ attempt, send }) {
        if (attempt > 0) send(good);
      },
    });
    const events = watchX509(undefined, 400);
    await expectFailed(events, /took the call but gave no answer/);
    await expectUpdate(events);
  });

  it('hangs up and ends when its signal fires', async () => {
    const closed = Promise.withResolvers<void>();
    await start({
      FetchX509SVID(call) {
        call.send(good);
        void call.closed.then(closed.resolve);
      },
    });
    const events = watchX509();
    await expectUpdate(events);
    const pending = events.next();
    stopping.abort();
    assert.equal((await pending).done, true);
    await closed.promise;
  });

  it('hangs up when nobody reads any more', async () => {
    const closed = Promise.withResolvers<void>();
    await start({
      FetchX509SVID(call) {
        call.send(good);
        void call.closed.then(closed.resolve);
      },
    });
    for await (const event of source().watchX509(stopping.signal)) {
      assert.equal(event.kind, 'update');
      break;
    }
    await closed.promise;
  });

  it('warns once, at the start, when the agent is reached over the network', () => {
    source('tcp://127.0.0.1:8081');
    assert.deepEqual(warnings, []);
    source('tcp://192.0.2.1:8081');
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] ?? '', /over the network without encryption/);
  });

  it('refuses a bad address at once', () => {
    assert.throws(() => source('unix://foo'), MalformedError);
  });

  describe('fetchJwtSvids', () => {
    const request = { audiences: ['billing'] };
    const fetch = (api: IdentitySource, more: object = {}) =>
      api.fetchJwtSvids({ ...request, ...more }, stopping.signal);
    const rejects = async (promise: Promise<unknown>, code: string, message: RegExp) =>
      assert.rejects(promise, (error) => {
        assert.ok(error instanceof AppError);
        assert.deepEqual([error.code, message.test(error.message)], [code, true], error.message);
        return true;
      });

    it('asks for the audiences and the ID and returns what it got', async () => {
      const { token } = await signer.sign({ spiffeId: web, ...request, ttlMs, now: Date.now() });
      let asked: object = {};
      await start({
        FetchJWTSVID(call) {
          asked = messageCodec('JWTSVIDRequest').decode(call.request);
          call.send({ svids: [{ spiffeId: web, svid: token }] });
          call.end();
        },
      });
      const [svid] = await fetch(source(), { spiffeId: web });
      assert.equal(svid?.token, token);
      assert.deepEqual({ ...asked }, { audience: ['billing'], spiffeId: web });
      assert.deepEqual(metered, ['fetch_jwt_svid answered', 'fetch_jwt_svid updated']);
    });

    it('keeps the meaning of a refusal as its code', async () => {
      await start({
        FetchJWTSVID: ({ attempt, fail }) =>
          attempt === 0 ? fail('PERMISSION_DENIED', 'no identity issued') : fail('UNAVAILABLE', 'later'),
      });
      await rejects(fetch(source()), 'permission_denied', /no identity issued/);
      await rejects(fetch(source()), 'unavailable', /is unavailable \("later"\)/);
      assert.deepEqual(metered, ['fetch_jwt_svid permission_denied', 'fetch_jwt_svid unavailable']);
    });

    it('refuses an answer that is not what was asked for', async () => {
      const { token } = await signer.sign({ spiffeId: web, audiences: ['x'], ttlMs, now: Date.now() });
      await start({
        FetchJWTSVID({ send, end }) {
          send({ svids: [{ spiffeId: web, svid: token }] });
          end();
        },
      });
      await rejects(fetch(source()), 'malformed', /lacks an audience/);
    });

    it('fails without an audience before any call, and says so', async () => {
      await rejects(fetch(source(), { audiences: [] }), 'invalid_argument', /needs an audience/);
    });

    it('fails when nothing is there, answers too late, or the signal fires', async () => {
      await rejects(fetch(source()), 'unavailable', /does not exist \(ENOENT\)/);
      const reached = Promise.withResolvers<void>();
      await start({
        FetchJWTSVID({ attempt }) {
          if (attempt === 1) reached.resolve();
        },
      });
      await rejects(fetch(source(undefined, 50)), 'timeout', /no answer in time/);
      const pending = fetch(source());
      await reached.promise;
      stopping.abort();
      await assert.rejects(pending, AbortedError);
    });
  });
});
