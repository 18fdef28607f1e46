import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFeed, type Feed } from '../../../src/app/identity.ts';
import { AppError, UnavailableError } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import type { X509Context } from '../../../src/spiffe/x509-context.ts';
import { createTrustStore, type TrustStore } from '../../../src/trust/store.ts';
import type { IdentitySource, WatchEvent } from '../../../src/workload/identity-source.ts';
import { createTestAuthority, testNow, trustIn } from '../../support/ca.ts';

const authority = await createTestAuthority('example.org');
const svid = await authority.svid('spiffe://example.org/web');
const context: X509Context = { svids: [svid], bundles: trustIn(authority) };
const revoked = new AppError('permission_denied', 'no identity issued');

/** A source that tells these events and ends. */
function sourceOf(events: readonly WatchEvent<X509Context>[]): IdentitySource {
  return {
    name: 'workload_api',
    async *watchX509() {
      yield* events;
    },
    async *watchJwtBundles() {},
    fetchJwtSvids: () => Promise.reject(new UnavailableError('not asked for here')),
  };
}

async function fed(
  events: readonly WatchEvent<X509Context>[],
  options: { onPermissionDenied?: 'drop' | 'keep'; expected?: string; now?: number } = {},
): Promise<{ feed: Feed; store: TrustStore }> {
  const { onPermissionDenied = 'drop', expected, now = testNow } = options;
  const store = createTrustStore({
    expectedTrustDomain: expected === undefined ? undefined : parseTrustDomain(expected),
    now: () => testNow,
    log: silentLogger,
    meter: { applied() {}, rotated() {} },
  });
  const feed = createFeed({
    source: sourceOf(events),
    store,
    onPermissionDenied,
    now: () => now,
    log: silentLogger,
  });
  const { signal } = new AbortController();
  await Promise.all(feed.tasks.map((task) => task(signal)));
  return { feed, store };
}

test('before the first identity the feed is not ready and says so', async () => {
  const { feed } = await fed([]);
  assert.equal(feed.unready(), 'no identity is held');
});

test('a good message makes it ready', async () => {
  const { feed, store } = await fed([{ kind: 'update', value: context }]);
  assert.equal(feed.unready(), undefined);
  assert.equal(feed.problem(), undefined);
  assert.equal(store.current().svids[0]?.spiffeId, 'spiffe://example.org/web');
});

test('a failure of the source keeps the last good identity, stays ready and shows the problem', async () => {
  const { feed, store } = await fed([
    { kind: 'update', value: context },
    { kind: 'failed', error: new UnavailableError('agent is away'), terminal: false },
  ]);
  assert.equal(feed.unready(), undefined);
  assert.equal(feed.problem(), 'agent is away');
  assert.equal(store.current().svids.length, 1);
});

test('a revocation drops identity and trust, and is the reason for not being ready', async () => {
  const { feed, store } = await fed([
    { kind: 'update', value: context },
    { kind: 'revoked', error: revoked },
  ]);
  assert.equal(feed.unready(), 'no identity is held: no identity issued');
  assert.equal(store.current().svids.length, 0);
  assert.equal(store.current().bundles.size, 0);
});

test('with on_permission_denied keep a revocation leaves identity and trust', async () => {
  const { feed, store } = await fed(
    [
      { kind: 'update', value: context },
      { kind: 'revoked', error: revoked },
    ],
    { onPermissionDenied: 'keep' },
  );
  assert.equal(feed.unready(), undefined);
  assert.equal(store.current().svids.length, 1);
});

test('an identity of another trust domain than asserted never enters, and is not ready by name', async () => {
  const { feed, store } = await fed([{ kind: 'update', value: context }], { expected: 'other.example' });
  assert.equal(feed.unready(), 'trust domain mismatch: expected other.example, got example.org');
  assert.equal(store.current().version, 0);
});

test('an identity that expired while the source was away is not ready', async () => {
  const { feed } = await fed([{ kind: 'update', value: context }], {
    now: (svid.chain[0].notAfter ?? 0) + 1,
  });
  assert.equal(feed.unready(), 'every X.509-SVID held has expired');
});

test('a problem is forgotten with the next good message', async () => {
  const { feed } = await fed([
    { kind: 'failed', error: new UnavailableError('agent is away'), terminal: false },
    { kind: 'update', value: context },
  ]);
  assert.equal(feed.problem(), undefined);
});
