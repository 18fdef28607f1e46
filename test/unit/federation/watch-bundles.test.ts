import assert from 'node:assert/strict';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createBundleFiles } from '../../../src/federation/bundle-files.ts';
import { pollDelayMs } from '../../../src/federation/federated-domain.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { formatBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority, x509Bundle } from '../../support/ca.ts';
import { pemOf } from '../../support/https-server.ts';
import { tempDirectory, until } from '../../support/process.ts';
import {
  documentOf,
  entryFor,
  nextRoot,
  own,
  partner,
  root,
  startEndpoint,
  startWatcher,
} from './harness.ts';

const first = root.certificate.fingerprint;
const second = nextRoot.certificate.fingerprint;

test('the bootstrap bundle is in force until the endpoint has answered, then what the endpoint says', async (t) => {
  const endpoint = await startEndpoint(t);
  const { authority } = await createJwtSigner();
  const started = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  endpoint.answer((_, response) => {
    started.resolve();
    void answer.promise.then(() =>
      response.end(documentOf([root, nextRoot], { sequence: 7n, refreshHintS: 60, jwt: [authority] })),
    );
  });
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await started.promise;
  assert.deepEqual(world.held(), [first]);
  assert.equal(world.watcher.state(partner)?.origin, 'bootstrap');
  answer.resolve();
  assert.equal(await world.asleep(), 60_000);
  assert.deepEqual(world.held(), [first, second]);
  assert.equal(world.store.current().jwtBundles.get(partner)?.authorities[0]?.keyId, authority.keyId);
  const state = world.watcher.state(partner);
  assert.deepEqual([state?.origin, state?.sequence, state?.refreshHintS], ['endpoint', 7n, 60]);
  assert.equal(state?.lastError, undefined);
  assert.deepEqual(world.counted, ['partner.example bootstrap changed', 'partner.example endpoint changed']);
});

test('the endpoint is verified against the newest bundle held, not against the bootstrap one', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer(documentOf([nextRoot]));
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  await world.round();
  assert.deepEqual(world.held(), [second]);
  assert.match(world.watcher.state(partner)?.lastError ?? '', /untrusted_chain/);
  assert.equal(world.counted.at(-1), 'partner.example refused untrusted_server');
});

test('an emptied bundle replaces the last good one: nothing is trusted, and the log says so', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer('{"keys":[]}');
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  assert.deepEqual(world.held(), []);
  assert.ok(world.lines.some(({ level, message }) => level === 'warn' && /is empty/.test(message)));
});

test('unknown key types are dropped one by one, and a bundle of nothing else empties trust', async (t) => {
  const endpoint = await startEndpoint(t);
  const { keys } = JSON.parse(documentOf([root])) as { keys: object[] };
  const strange = { kty: 'PQC', use: 'x509-svid', x5c: ['AAAA'] };
  endpoint.answer(JSON.stringify({ keys: [strange, ...keys, { kty: 'EC', use: 'wit-svid' }] }));
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  assert.deepEqual(world.held(), [first]);
  endpoint.answer(JSON.stringify({ keys: [strange] }));
  await world.round();
  assert.deepEqual(world.held(), []);
});

test('an older sequence is refused, also after a bundle without one; the same and a newer one are taken', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer(documentOf([root], { sequence: 2n ** 63n }));
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  endpoint.answer(documentOf([root, nextRoot], { sequence: 2n ** 63n - 1n }));
  await world.round();
  assert.deepEqual(world.held(), [first]);
  assert.match(world.watcher.state(partner)?.lastError ?? '', /older than 9223372036854775808/);
  endpoint.answer(documentOf([root, nextRoot], { sequence: 2n ** 63n }));
  await world.round();
  assert.deepEqual(world.held(), [first, second]);
  assert.equal(world.watcher.state(partner)?.lastError, undefined);
  endpoint.answer(documentOf([root]));
  await world.round();
  assert.deepEqual(world.held(), [first]);
  endpoint.answer(documentOf([root, nextRoot], { sequence: 1n }));
  await world.round();
  assert.deepEqual(world.held(), [first]);
  assert.deepEqual(
    world.counted.filter((line) => line.includes('refused')),
    ['partner.example refused sequence_rollback', 'partner.example refused sequence_rollback'],
  );
});

test('a fault is logged when it begins and when it ends, not each time', async (t) => {
  const endpoint = await startEndpoint(t);
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  await world.round();
  await world.round();
  endpoint.answer(documentOf([root]));
  await world.round();
  await world.round();
  const told = world.lines.filter(({ level }) => level === 'warn' || level === 'info');
  assert.deepEqual(
    told.map(({ message }) => message),
    [
      'federated bundle taken',
      'federated bundle refused; the last good one stays',
      'bundle endpoint answers again',
    ],
  );
  assert.deepEqual(told[1]?.fields, {
    trustDomain: partner,
    reason: 'bad_status',
    error: 'answered with status 500, expected 200',
  });
});

test('a failure waits for the next interval: that of the last hint, else 5 minutes', async (t) => {
  const endpoint = await startEndpoint(t);
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  assert.equal(await world.asleep(), 300_000);
  endpoint.answer(documentOf([root], { refreshHintS: 10 }));
  assert.equal(await world.round(), 10_000);
  endpoint.answer((_, response) => response.writeHead(503).end());
  assert.equal(await world.round(), 10_000);
});

test('partners appear and disappear while it runs; what an entry brought goes with it', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer(documentOf([root]));
  const world = await startWatcher(t, { entries: [] });
  world.entries.set([entryFor(endpoint.url)]);
  await world.asleep();
  assert.deepEqual(world.held(), [first]);
  world.entries.set([]);
  await until('the partner to be gone', () => world.held() === undefined || undefined);
  assert.equal(world.watcher.state(partner), undefined);
  assert.equal(world.counted.at(-1), 'partner.example removed');
  world.entries.set([entryFor(endpoint.url)]);
  await until('the partner to be back', () => world.held());
});

test('an entry that was seeded and is gone before the watcher runs ends trust, too', async (t) => {
  const world = await startWatcher(t, { entries: [], seeds: [entryFor('https://127.0.0.1:1')] });
  assert.deepEqual(world.counted[0], 'partner.example bootstrap changed');
  await until('the partner to be gone', () => world.held() === undefined || undefined);
  assert.deepEqual(world.counted.at(-1), 'partner.example removed');
  assert.equal(world.watcher.state(partner), undefined);
});

test('an entry that changes keeps trust and sequence, and its new endpoint is asked at once', async (t) => {
  const [before, after] = [await startEndpoint(t), await startEndpoint(t)];
  before.answer(documentOf([root], { sequence: 5n }));
  const asked = Promise.withResolvers<void>();
  after.answer((_, response) => {
    response.end(documentOf([nextRoot], { sequence: 4n }));
    asked.resolve();
  });
  const world = await startWatcher(t, { entries: [entryFor(before.url)] });
  await world.asleep();
  world.entries.set([entryFor(after.url)]);
  await asked.promise;
  await until('the answer to be refused', () => world.watcher.state(partner)?.lastError);
  assert.deepEqual(world.held(), [first]);
  assert.equal(world.counted.at(-1), 'partner.example refused sequence_rollback');
});

test('an entry that is given again unchanged is not asked again', async (t) => {
  const endpoint = await startEndpoint(t);
  let asked = 0;
  endpoint.answer((_, response) => {
    asked += 1;
    response.end(documentOf([root]));
  });
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)] });
  await world.asleep();
  const other = entryFor(endpoint.url, { trustDomain: parseTrustDomain('other.example') });
  world.entries.set([entryFor(endpoint.url), other]);
  await until('the other to be asked', () => (asked === 2 ? true : undefined));
  await until('the other to be held', () => world.watcher.state(other.trustDomain)?.fetchedAt);
  assert.equal(asked, 2);
});

test('an endpoint of another trust domain waits until the bundle of that domain is held', async (t) => {
  const endpoint = await startEndpoint(t, {});
  endpoint.answer(documentOf([nextRoot]));
  const world = await startWatcher(t, { entries: [], identity: false });
  const svid = await world.authority.svid('spiffe://own.example/publisher');
  endpoint.server.setSecureContext(pemOf(svid));
  world.entries.set([
    entryFor(endpoint.url, {
      profile: { kind: 'https_spiffe', spiffeId: svid.spiffeId },
      bootstrap: undefined,
    }),
  ]);
  await until('the wait to be told', () => world.watcher.state(partner)?.lastError);
  assert.equal(world.held(), undefined);
  await world.giveIdentity();
  await world.asleep();
  assert.deepEqual(world.held(), [second]);
  assert.equal(world.watcher.state(partner)?.lastError, undefined);
});

test('a bootstrap bundle of another trust domain vouches for the endpoint and is trusted for nothing else', async (t) => {
  const vouching = parseTrustDomain('hub.example');
  const hub = await createTestAuthority(vouching);
  const endpoint = await startEndpoint(t);
  endpoint.answer(documentOf([nextRoot]));
  const svid = await hub.svid('spiffe://hub.example/publisher');
  endpoint.server.setSecureContext(pemOf(svid));
  const bootstrap = formatBundleDocument({
    x509: x509Bundle(vouching, [hub]),
    jwt: { trustDomain: vouching, authorities: [] },
  });
  const profile = { kind: 'https_spiffe', spiffeId: svid.spiffeId } as const;
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url, { profile, bootstrap })] });
  await world.asleep();
  assert.deepEqual(world.held(), [second]);
  assert.equal(world.store.current().bundles.has(vouching), false);
});

test('a bundle of our own trust domain is refused whatever an entry says', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer(documentOf([root]));
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url, { trustDomain: own })] });
  const before = world.store.current();
  await world.asleep();
  assert.equal(world.store.current(), before);
  assert.deepEqual(world.counted, ['own.example refused own_trust_domain']);
});

test('the last good bundle survives a restart, in a file that only we can read, and is asked for before the bootstrap', async (t) => {
  const directory = join(await tempDirectory(t), 'bundles');
  const endpoint = await startEndpoint(t);
  const text = documentOf([root, nextRoot], { sequence: 3n, refreshHintS: 30 });
  endpoint.answer(text);
  const before = await startWatcher(t, {
    entries: [entryFor(endpoint.url)],
    files: await createBundleFiles(directory),
  });
  await before.asleep();
  await until('the bundle to be on disk', async () => (await readdir(directory))[0]);
  await before.end();
  assert.equal(await readFile(join(directory, 'partner.example.json'), 'utf8'), text);
  assert.equal((await stat(join(directory, 'partner.example.json'))).mode & 0o777, 0o600);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
  assert.deepEqual(await readdir(directory), ['partner.example.json']);

  endpoint.answer((_, response) => response.writeHead(500).end());
  const after = await startWatcher(t, {
    entries: [entryFor(endpoint.url)],
    files: await createBundleFiles(directory),
  });
  assert.equal(await after.asleep(), 30_000);
  assert.deepEqual(after.held(), [first, second]);
  assert.deepEqual(after.counted, [
    'partner.example persisted changed',
    'partner.example refused bad_status',
  ]);
  endpoint.answer(documentOf([root], { sequence: 2n }));
  await after.round();
  assert.equal(
    after.counted.at(-1),
    'partner.example refused sequence_rollback',
    'the sequence survives, too',
  );
  after.entries.set([]);
  await until('the file to be gone', async () =>
    (await readdir(directory)).length === 0 ? true : undefined,
  );
});

test('a broken file is told of and passed over', async (t) => {
  const directory = join(await tempDirectory(t), 'bundles');
  const files = await createBundleFiles(directory);
  await writeFile(join(directory, 'partner.example.json'), 'garbage');
  const endpoint = await startEndpoint(t);
  const world = await startWatcher(t, { entries: [entryFor(endpoint.url)], files });
  await world.asleep();
  assert.deepEqual(world.held(), [first]);
  assert.equal(world.lines[0]?.message, 'bundle on disk cannot be used');
});

test('the wait between fetches is the hint within 1 s and 24 h, 5 minutes without one, and 10 % more or less', () => {
  const middle = (hint: number | undefined): number => pollDelayMs(hint, () => 0.5);
  assert.deepEqual(
    [undefined, 0, 1, 60, 86_400, 10_000_000].map(middle),
    [300_000, 300_000, 1_000, 60_000, 86_400_000, 86_400_000],
  );
  fc.assert(
    fc.property(
      fc.option(fc.nat(), { nil: undefined }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (hint, random) => {
        const ms = pollDelayMs(hint, () => random);
        assert.ok(ms >= middle(hint) * 0.9 - 1 && ms <= middle(hint) * 1.1 + 1);
      },
    ),
  );
});
