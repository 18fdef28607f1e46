import assert from 'node:assert/strict';
import type { RequestListener } from 'node:http';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeBundleText, fetchBundle } from '../../../src/federation/fetch-bundle.ts';
import { type BundleRefusal, refusalOf } from '../../../src/federation/refusal.ts';
import { AppError, MalformedError, toAppError } from '../../../src/runtime/errors.ts';
import { parseBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { testNow, trustIn } from '../../support/ca.ts';
import { pemOf } from '../../support/https-server.ts';
import { documentOf, entryFor, partner, root, startEndpoint, startWatcher } from './harness.ts';

const good = documentOf([root], { refreshHintS: 60, sequence: 9n });

type Hostile = readonly [what: string, answer: RequestListener, reason: BundleRefusal, says: RegExp];

const hostile: readonly Hostile[] = [
  [
    'a huge body',
    (_, response) => response.end(' '.repeat(1024 * 1024 + 1)),
    'too_large',
    /longer than 1048576 bytes/,
  ],
  [
    'an endless body',
    (_, response) => {
      const timer = setInterval(() => response.write(' '.repeat(100_000)), 1);
      response.on('close', () => clearInterval(timer));
    },
    'too_large',
    /longer than 1048576 bytes/,
  ],
  [
    'a redirect loop',
    (_, response) => response.writeHead(302, { location: '/' }).end(),
    'too_many_redirects',
    /more than 3 times/,
  ],
  [
    'a redirect to http',
    (_, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
    'bad_redirect',
    /no plain https URL/,
  ],
  [
    'status 404 with a good body',
    (_, response) => response.writeHead(404).end(good),
    'bad_status',
    /status 404/,
  ],
  [
    'status 203 with a good body',
    (_, response) => response.writeHead(203).end(good),
    'bad_status',
    /status 203/,
  ],
  ['garbage', (_, response) => response.end('<html>'), 'malformed', /not JSON/],
  [
    'bytes that are not UTF-8',
    (_, response) => response.end(Buffer.from([0x7b, 0xff, 0x7d])),
    'malformed',
    /UTF-8/,
  ],
  ['no keys member', (_, response) => response.end('{}'), 'malformed', /no list of keys/],
  ['a member twice', (_, response) => response.end('{"keys":[],"keys":[]}'), 'malformed', /twice/],
  [
    'an older sequence',
    (_, response) => response.end(documentOf([], { sequence: 8n })),
    'sequence_rollback',
    /sequence 8, older than 9/,
  ],
  ['a connection that breaks', (request) => request.socket.destroy(), 'unreachable', /ECONNRESET|hang up/],
  [
    'an answer that is not HTTP',
    (request) => request.socket.end('SSH-2.0-x\r\n\r\n'),
    'malformed',
    /not valid HTTP/,
  ],
];

for (const [what, answer, reason, says] of hostile) {
  test(`${what}: the last good bundle stays, and metric and log say why`, async (t) => {
    const endpoint = await startEndpoint(t);
    endpoint.answer(good);
    const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
    await world.asleep();
    const held = world.store.current();
    endpoint.answer(answer);
    assert.equal(await world.round(), 60_000, 'the next attempt waits for the interval');
    assert.equal(world.store.current(), held);
    assert.equal(world.counted.at(-1), `${partner} refused ${reason}`);
    const line = world.lines.at(-1);
    assert.equal(line?.level, 'warn');
    assert.equal(line.fields['reason'], reason);
    assert.match(String(line.fields['error']), says);
    assert.match(world.watcher.state(partner)?.lastError ?? '', says);
    endpoint.answer(good);
    await world.round();
    assert.equal(world.watcher.state(partner)?.lastError, undefined, 'and a good answer mends it');
  });
}

test('a server with another SPIFFE ID: the last good bundle stays, and metric and log say why', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer(good);
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  const held = world.store.current();
  endpoint.server.setSecureContext(pemOf(await root.svid('spiffe://partner.example/web')));
  endpoint.answer(documentOf([], { sequence: 10n }));
  await world.round();
  assert.equal(world.store.current(), held);
  assert.equal(world.counted.at(-1), `${partner} refused untrusted_server`);
  assert.match(String(world.lines.at(-1)?.fields['error']), /expected spiffe:\/\/partner\.example\/bundles/);
});

test('a slow endpoint is given up after 10 seconds in all', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const endpoint = await startEndpoint(t);
  const reached = Promise.withResolvers<void>();
  endpoint.answer((_, response) => {
    response.write('{');
    reached.resolve();
  });
  const deps = { bundles: () => trustIn(root), now: () => testNow };
  const fetched = fetchBundle(entryFor(endpoint.url), deps, new AbortController().signal);
  const outcome = fetched.then(
    () => 'taken',
    (error: unknown) => refusalOf(toAppError(error)),
  );
  await reached.promise;
  t.mock.timers.tick(9_999);
  assert.equal(await Promise.race([outcome, Promise.resolve('waiting')]), 'waiting');
  t.mock.timers.tick(1);
  assert.equal(await outcome, 'timeout');
});

test('whatever bytes an endpoint sends, they are a bundle or a clear refusal', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.json().map((text) => Buffer.from(text)),
      ),
      (bytes) => {
        try {
          parseBundleDocument(decodeBundleText(Buffer.from(bytes), partner), partner);
        } catch (error) {
          assert.ok(error instanceof MalformedError, String(error));
          assert.ok(error instanceof AppError);
          assert.equal(refusalOf(error), 'malformed');
        }
      },
    ),
  );
});
