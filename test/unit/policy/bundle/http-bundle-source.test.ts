import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ServerTrust } from '../../../../src/http/server-trust.ts';
import { maxBundleBytes } from '../../../../src/policy/bundle/bundle.ts';
import type { BundleVersion } from '../../../../src/policy/bundle/bundle-source.ts';
import {
  createHttpBundleSource,
  type HttpBundleOptions,
  type HttpBundleSource,
} from '../../../../src/policy/bundle/http-bundle-source.ts';
import { aborted, sleep } from '../../../../src/runtime/abort.ts';
import { MalformedError } from '../../../../src/runtime/errors.ts';
import { silentLogger } from '../../../../src/runtime/log.ts';
import { parseSpiffeId } from '../../../../src/spiffe/spiffe-id.ts';
import { type BundleServer, startBundleServer } from '../../../support/bundle-server.ts';
import { createTestAuthority, testNow, trustIn } from '../../../support/ca.ts';
import { startHttpsServer } from '../../../support/https-server.ts';
import { tempDirectory, until } from '../../../support/process.ts';

const id = parseSpiffeId('spiffe://partner.example/bundles');
const root = await createTestAuthority('partner.example');
const svid = await root.svid(id);
const trust: ServerTrust = {
  kind: 'spiffe',
  spiffeIds: [id],
  bundles: () => trustIn(root),
  now: () => testNow,
};

type Followed = {
  readonly source: HttpBundleSource;
  /** What the handler was given, in order: the text of a bundle, or the message of a failure after `!`. */
  readonly given: string[];
  readonly keys: (KeyObject | undefined)[];
  /** For each that it was given, whether it may be a delta. */
  readonly deltas: boolean[];
  readonly outcomes: string[];
  readonly delays: number[];
  readonly logged: string[];
  /** Bundles with this text are refused. */
  refused: string | undefined;
  mode: 'snapshot' | 'delta';
  stop(): Promise<void>;
};

const polling = { minMs: 1_000, maxMs: 2_000, longPollMs: undefined };

/** Follows with a clock whose waits are short whatever is asked of it. */
function follow(t: TestContext, url: string, more: Partial<HttpBundleOptions> = {}): Followed {
  const stop = new AbortController();
  const warn = (_: unknown, message: string): void => void followed.logged.push(message);
  const source = createHttpBundleSource({
    name: 'authz',
    url,
    polling,
    trust,
    timeoutMs: 5_000,
    now: () => 1_000,
    monotonicNow: () => performance.now(),
    sleep(ms, signal) {
      followed.delays.push(ms);
      return sleep(5, signal);
    },
    random: Math.random,
    log: { ...silentLogger, warn, error: warn },
    meter: { bundleRequested: (_, outcome) => followed.outcomes.push(outcome), bundleAnswered() {} },
    ...more,
  });
  const followed: Followed = {
    source,
    given: [],
    keys: [],
    deltas: [],
    outcomes: [],
    delays: [],
    logged: [],
    refused: undefined,
    mode: 'snapshot',
    async stop() {
      stop.abort();
      await running;
    },
  };
  const handler = {
    take({ bytes, key, mayBeDelta }: BundleVersion) {
      const text = bytes.toString();
      followed.given.push(text);
      followed.keys.push(key);
      followed.deltas.push(mayBeDelta);
      if (text === followed.refused) return Promise.reject(new MalformedError('not good'));
      return Promise.resolve({ kind: followed.mode, file: text });
    },
    failed: (error: Error) => void followed.given.push(`!${error.message}`),
  };
  const running = source.follow(handler, stop.signal);
  t.after(() => followed.stop());
  return followed;
}

function eventually(what: string, holds: () => boolean): Promise<true> {
  return until(what, () => Promise.resolve(holds() || undefined));
}

async function seeing(followed: Followed, pattern: RegExp): Promise<void> {
  await eventually(String(pattern), () => followed.given.some((text) => pattern.test(text)));
}

async function publishing(t: TestContext, text = 'v1', etag = '"v1"'): Promise<BundleServer> {
  const server = await startBundleServer(t);
  server.publish(Buffer.from(text), etag);
  return server;
}

test('a version is taken once, and the next one when there is one', async (t) => {
  const server = await publishing(t);
  const followed = follow(t, server.url);
  await eventually('some 304', () => followed.outcomes.filter((one) => one === 'unchanged').length > 2);
  assert.deepEqual(followed.given, ['v1']);
  assert.deepEqual(followed.source.state(), { etag: '"v1"', requestedAt: 1_000, answeredAt: 1_000 });
  server.publish(Buffer.from('v2'), '"v2"');
  await seeing(followed, /v2/);
  await followed.stop();
  assert.deepEqual(followed.given, ['v1', 'v2']);
  const [first, second] = server.requests();
  assert.deepEqual([first?.prefer, first?.ifNoneMatch], ['modes=snapshot', undefined]);
  assert.deepEqual([second?.prefer, second?.ifNoneMatch], ['modes=snapshot,delta', '"v1"']);
  assert.ok(followed.delays.every((ms) => ms >= 1_000 && ms <= 2_000));
});

test('only an answer to a request with an ETag may be a delta', async (t) => {
  const server = await publishing(t);
  const followed = follow(t, server.url);
  await seeing(followed, /^v1$/);
  server.publish(Buffer.from('v2'), '"v2"');
  await seeing(followed, /^v2$/);
  followed.refused = 'v3';
  server.publish(Buffer.from('v3'), '"v3"');
  await eventually('v3 twice', () => followed.given.length > 3);
  await followed.stop();
  assert.deepEqual(followed.given.slice(0, 4), ['v1', 'v2', 'v3', 'v3']);
  assert.deepEqual(followed.deltas.slice(0, 4), [false, true, true, false]);
});

test('without an ETag each answer is a version', async (t) => {
  const server = await startBundleServer(t);
  server.publish(Buffer.from('v1'));
  const followed = follow(t, server.url);
  await eventually('three', () => followed.given.length >= 3);
  assert.deepEqual(new Set(followed.given), new Set(['v1']));
});

test('a refused version is offered again at the next poll', async (t) => {
  const server = await publishing(t);
  const followed = follow(t, server.url);
  followed.refused = 'v1';
  await eventually('three', () => followed.given.length >= 3);
  assert.deepEqual(new Set(server.requests().map(({ ifNoneMatch }) => ifNoneMatch)), new Set([undefined]));
  assert.ok(
    followed.delays.every((ms) => ms >= 1_000),
    'at the usual interval',
  );
  followed.refused = undefined;
  await eventually('the ETag', () => server.requests().some(({ ifNoneMatch }) => ifNoneMatch === '"v1"'));
});

test('failures are told with their reason, the ETag is forgotten, and a good answer comes through again', async (t) => {
  const server = await publishing(t);
  const followed = follow(t, server.url);
  await seeing(followed, /^v1$/);
  server.override((_, response) => {
    response.writeHead(500).end('oops');
    return true;
  });
  await seeing(followed, /^!answered with status 500, expected 200$/);
  assert.equal(followed.source.state().etag, undefined);
  followed.given.length = 0;
  server.override(undefined);
  await seeing(followed, /^v1$/);
  assert.ok(followed.outcomes.includes('failed'));
});

test('a 304 for what was not asked, and other answers without a bundle, are failures', async (t) => {
  const server = await publishing(t);
  for (const status of [304, 204, 404, 206, 401]) {
    server.override((_, response) => {
      response.writeHead(status).end();
      return true;
    });
    const followed = follow(t, server.url);
    await seeing(followed, new RegExp(`^!answered with status ${status}`));
    await followed.stop();
    assert.ok(followed.given.every((text) => text.startsWith('!')));
  }
});

test('an answer that breaks off, is too large, comes too slowly or not at all is a failure', async (t) => {
  const server = await publishing(t);
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.after(() => silent.close());
  const { port } = silent.address() as { port: number };
  const mute = follow(t, `http://127.0.0.1:${port}/x`, { timeoutMs: 300 });
  await seeing(mute, /^!no answer within 300 ms/);
  await mute.stop();

  server.override((_, response) => {
    response.writeHead(200, { 'content-length': '10' }).write('v');
    return true;
  });
  const slow = follow(t, server.url, { timeoutMs: 300 });
  await seeing(slow, /^!no answer within 300 ms/);
  await slow.stop();

  server.override((_, response) => {
    response.writeHead(200, { 'content-length': '10' }).write('v', () => response.destroy());
    return true;
  });
  const cut = follow(t, server.url);
  await seeing(cut, /^!GET http:\/\/127\.0\.0\.1/);
  await cut.stop();
  assert.ok([...mute.given, ...slow.given, ...cut.given].every((text) => text.startsWith('!')));
});

test('an answer that is larger than a bundle may be is a failure', async (t) => {
  const server = await publishing(t);
  const block = Buffer.alloc(1024 * 1024);
  server.override((_, response) => {
    let left = maxBundleBytes / block.length + 2;
    const more = (): void => {
      while (left > 0 && !response.destroyed) {
        left -= 1;
        if (!response.write(block)) return void response.once('drain', more);
      }
      response.end();
    };
    response.on('error', () => {});
    more();
    return true;
  });
  const followed = follow(t, server.url, { timeoutMs: 60_000 });
  await seeing(followed, /^!.*longer than 67108864 bytes/);
});

test('a redirect is followed to https only', async (t) => {
  const server = await publishing(t);
  const secure = await startHttpsServer(t, svid, (_, response) => response.end('there'));
  server.override((_, response) => {
    response.writeHead(302, { location: secure.url }).end();
    return true;
  });
  await seeing(follow(t, server.url), /^there$/);
  const other = await publishing(t);
  server.override((_, response) => {
    response.writeHead(302, { location: other.url }).end();
    return true;
  });
  await seeing(follow(t, server.url), /^!redirected to what is no plain https URL/);
  assert.equal(other.requests().length, 0);
});

test('a service that waits is asked to, and its news come without a pause', async (t) => {
  const server = await startBundleServer(t, { longPoll: true });
  server.publish(Buffer.from('v1'), '"v1"');
  const followed = follow(t, server.url, { polling: { ...polling, longPollMs: 60_000 } });
  const isHeldBack = (etag: string): boolean =>
    server.requests().some(({ status, ifNoneMatch }) => status === 0 && ifNoneMatch === etag);
  await eventually('the service to wait', () => isHeldBack('"v1"'));
  server.publish(Buffer.from('v2'), '"v2"');
  await eventually('the service to wait again', () => isHeldBack('"v2"'));
  assert.deepEqual(followed.given, ['v1', 'v2']);
  assert.deepEqual(
    server.requests().map(({ prefer }) => prefer),
    ['modes=snapshot;wait=60', 'modes=snapshot,delta;wait=60', 'modes=snapshot,delta;wait=60'],
  );
  // It ends what is held back.
  await followed.stop();
});

test('an answer that never comes is a failure when the service has had its time', async (t) => {
  const server = await startBundleServer(t, { longPoll: true });
  server.publish(Buffer.from('v1'), '"v1"');
  server.override(({ headers }) => headers['if-none-match'] !== undefined);
  const followed = follow(t, server.url, {
    polling: { ...polling, longPollMs: 1_000 },
    timeoutMs: 300,
  });
  await seeing(followed, /^!no answer within 1300 ms/);
});

test('a token is read for each request, and without one nothing is asked', async (t) => {
  const server = await publishing(t);
  const bearerFile = join(await tempDirectory(t), 'token');
  server.requireToken('first');
  const followed = follow(t, server.url, { bearerFile });
  await seeing(followed, /^!bearer token .* cannot be read: ENOENT/);
  assert.equal(server.requests().length, 0);
  await writeFile(bearerFile, 'first\n');
  await seeing(followed, /^v1$/);
  server.requireToken('second');
  await seeing(followed, /^!answered with status 401/);
  followed.given.length = 0;
  await writeFile(bearerFile, 'second\n');
  await seeing(followed, /^v1$/);
});

test('the service is not asked before it can be, and what is on disk does not wait for that', async (t) => {
  const server = await publishing(t);
  const persistDir = await tempDirectory(t);
  const kept = join(persistDir, 'bundles/authz/bundle.tar.gz');
  await mkdir(dirname(kept), { recursive: true, mode: 0o700 });
  await writeFile(kept, 'v0');
  const { promise: ready, resolve: open } = Promise.withResolvers<void>();
  const followed = follow(t, server.url, {
    persistDir,
    ready: (signal) => Promise.race([ready, aborted(signal)]),
  });
  await seeing(followed, /^v0$/);
  assert.equal(server.requests().length, 0);
  open();
  await seeing(followed, /^v1$/);
});

test('a good snapshot is kept on disk and comes first after a restart; a delta or refused one is not kept', async (t) => {
  const server = await publishing(t);
  const persistDir = join(await tempDirectory(t), 'kept');
  const file = join(persistDir, 'bundles/authz/bundle.tar.gz');
  const isKept = (text: string) =>
    until(`${text} on disk`, async () => {
      const there = await readFile(file, 'utf8').catch(() => '');
      return there === text || undefined;
    });
  const first = follow(t, server.url, { persistDir });
  await isKept('v1');
  first.refused = 'v2';
  server.publish(Buffer.from('v2'), '"v2"');
  await eventually('v2 twice', () => first.given.filter((text) => text === 'v2').length > 1);
  first.mode = 'delta';
  server.publish(Buffer.from('v3'), '"v3"');
  await seeing(first, /^v3$/);
  await eventually('a look after v3', () => first.outcomes.at(-1) === 'unchanged');
  await isKept('v1');
  first.mode = 'snapshot';
  server.publish(Buffer.from('v4'), '"v4"');
  await isKept('v4');
  await first.stop();
  assert.deepEqual(await readdir(dirname(file)), ['bundle.tar.gz']);

  await server.close();
  const again = follow(t, server.url, { persistDir });
  await seeing(again, /^!/);
  assert.equal(again.given[0], 'v4');
});

test('what is on disk is written anew only when it is another, also without ETags', async (t) => {
  const server = await startBundleServer(t);
  server.publish(Buffer.from('v1'));
  const persistDir = join(await tempDirectory(t), 'kept');
  const file = join(persistDir, 'bundles/authz/bundle.tar.gz');
  const first = follow(t, server.url, { persistDir });
  await eventually('four answers', () => first.given.length > 3);
  // Each write is a file of its own, renamed into place.
  const { ino, mtimeNs } = await stat(file, { bigint: true });
  await eventually('four more', () => first.given.length > 7);
  await first.stop();
  const again = follow(t, server.url, { persistDir });
  await eventually('four after a restart', () => again.given.length > 4);
  const later = await stat(file, { bigint: true });
  assert.deepEqual([later.ino, later.mtimeNs], [ino, mtimeNs]);
  server.publish(Buffer.from('v2'));
  await until('v2 on disk', async () => (await readFile(file, 'utf8')) === 'v2' || undefined);
});

test('a kept bundle that is refused is told and passed over', async (t) => {
  const server = await publishing(t);
  const persistDir = await tempDirectory(t);
  const first = follow(t, server.url, { persistDir });
  await seeing(first, /^v1$/);
  await eventually('a look after it', () => first.outcomes.includes('unchanged'));
  await first.stop();
  server.publish(Buffer.from('v2'), '"v2"');
  const followed = follow(t, server.url, { persistDir });
  followed.refused = 'v1';
  await seeing(followed, /^v2$/);
  assert.deepEqual(followed.logged, ['bundle on disk cannot be used']);
});

test('a directory that others may write to ends it at the start', async (t) => {
  const server = await publishing(t);
  const parent = await tempDirectory(t);
  for (const below of ['', 'bundles', 'bundles/authz']) {
    const persistDir = join(parent, `kept${below.length}`);
    await mkdir(join(persistDir, 'bundles/authz'), { recursive: true, mode: 0o700 });
    await chmod(join(persistDir, below), 0o777);
    const source = createHttpBundleSource({
      name: 'authz',
      url: server.url,
      polling,
      trust,
      persistDir,
      sleep,
      random: Math.random,
      now: Date.now,
      monotonicNow: Date.now,
      log: silentLogger,
      meter: { bundleRequested() {}, bundleAnswered() {} },
    });
    const handler = { take: () => Promise.resolve({ kind: 'snapshot', file: '' } as const), failed() {} };
    await assert.rejects(source.follow(handler, new AbortController().signal), /others may write to/);
  }
  assert.equal(server.requests().length, 0);
});

test('a changed key judges the version anew, a missing one is a failure, and no deltas are asked for', async (t) => {
  const server = await publishing(t);
  const directory = await tempDirectory(t);
  const verificationKey = join(directory, 'pub.pem');
  const keyPair = () => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    return publicKey.export({ format: 'pem', type: 'spki' });
  };
  const followed = follow(t, server.url, { verificationKey });
  await seeing(followed, /^!.*pub\.pem does not exist/);
  const pems = [keyPair(), keyPair()];
  for (const [index, pem] of pems.entries()) {
    await writeFile(verificationKey, pem);
    await eventually(`key ${index}`, () => followed.keys.length === index + 1);
    assert.ok(followed.keys[index]?.equals(createPublicKey(pem)));
    await eventually('a 304', () => followed.outcomes.at(-1) === 'unchanged');
  }
  assert.deepEqual(new Set(server.requests().map(({ prefer }) => prefer)), new Set(['modes=snapshot']));
  await rm(verificationKey);
  await eventually('the failure', () => /does not exist/.test(followed.given.at(-1) ?? ''));
});

test('the query of the URL is used and never told', async (t) => {
  const server = await publishing(t);
  const followed = follow(t, `${server.origin}/other?sig=s3cret`);
  await seeing(followed, /^!answered with status 404/);
  await server.close();
  await seeing(followed, /^!GET .*ECONNREFUSED/);
  assert.equal(followed.source.location, `${server.origin}/other`);
  assert.ok(followed.given.every((text) => !text.includes('s3cret')));
});
