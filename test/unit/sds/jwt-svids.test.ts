import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { AppError } from '../../../src/runtime/errors.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { createServedJwtSvids } from '../../../src/sds/jwt-svids.ts';
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { createJwtSvidCache } from '../../../src/tokens/jwt-svid-cache.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, testNow } from '../../support/ca.ts';
import { unsignedJwtSvid } from '../../support/jwt.ts';
import { createManualClock } from '../../support/manual-clock.ts';

const web = parseSpiffeId('spiffe://example.org/web');
const api = parseSpiffeId('spiffe://example.org/api');
const ttlMs = 300_000;
const svids = new Map<SpiffeId, X509Svid>();

before(async () => {
  const ca = await createTestAuthority('example.org');
  svids.set(web, await ca.svid(web, { hint: 'external' }));
  svids.set(api, await ca.svid(api, { hint: 'internal' }));
});

function snapshotOf(...ids: readonly SpiffeId[]): TrustSnapshot {
  return {
    ...emptySnapshot,
    version: 1,
    trustDomain: parseTrustDomain('example.org'),
    svids: ids.map((id) => svids.get(id)).filter((svid) => svid !== undefined),
  };
}

function setUp(audiences: readonly string[], defaultSvidHint?: string) {
  const clock = createManualClock(testNow);
  let asked = 0;
  let denied = false;
  const cache = createJwtSvidCache({
    fetch: ({ audiences: [audience = ''], spiffeId = web }) => {
      asked += 1;
      if (denied) return Promise.reject(new AppError('permission_denied', 'no such entry'));
      return Promise.resolve([
        unsignedJwtSvid({ audience, spiffeId, now: clock.now(), ttlMs, jti: `${asked}` }),
      ]);
    },
    now: clock.now,
    sleep: clock.sleep,
    random: () => 1,
    log: silentLogger,
    meter: { requested() {}, issued() {}, failed() {} },
    maxEntries: 10,
  });
  const snapshots = createLatest<TrustSnapshot>(emptySnapshot);
  const served = createServedJwtSvids({ audiences, snapshots, cache, defaultSvidHint, log: silentLogger });
  const stop = new AbortController();
  const done = Promise.all([cache.run(stop.signal), served.run(stop.signal)]);
  return {
    clock,
    served,
    snapshots,
    asked: () => asked,
    deny: (value: boolean) => {
      denied = value;
    },
    ids: () => [...served.current()].map(([audience, { spiffeId }]) => `${audience} ${spiffeId}`),
    stop: async () => {
      stop.abort();
      await done;
    },
  };
}

describe('the JWT-SVIDs for SDS', () => {
  test('are of the default identity, one for each audience, once there is one', async () => {
    const { clock, snapshots, ids, asked, stop } = setUp(['billing', 'shop']);
    await clock.advance(1000);
    assert.deepEqual([ids(), asked()], [[], 0]);
    snapshots.set(snapshotOf(web, api));
    await clock.advance(1000);
    assert.deepEqual(ids(), [`billing ${web}`, `shop ${web}`]);
    await stop();
  });

  test('are renewed before they expire', async () => {
    const { clock, snapshots, served, stop } = setUp(['billing']);
    snapshots.set(snapshotOf(web));
    await clock.advance(1000);
    const first = served.current().get('billing');
    await clock.advance(ttlMs);
    const second = served.current().get('billing');
    assert.ok(first !== undefined && second !== undefined && second.expiresAt > clock.now());
    assert.notEqual(first.token, second.token);
    await stop();
  });

  test('go at once with the identity, and come again for the next one', async () => {
    const { clock, snapshots, ids, stop } = setUp(['billing']);
    snapshots.set(snapshotOf(web));
    await clock.advance(1000);
    snapshots.set(snapshotOf(api));
    await clock.advance(1000);
    assert.deepEqual(ids(), [`billing ${api}`]);
    snapshots.set(snapshotOf());
    await clock.advance(1000);
    assert.deepEqual(ids(), []);
    await clock.advance(ttlMs);
    assert.deepEqual(ids(), []);
    await stop();
  });

  test('go when the source denies them, though the X509-SVID stays, and come again', async () => {
    const { clock, snapshots, ids, deny, stop } = setUp(['billing']);
    snapshots.set(snapshotOf(web));
    await clock.advance(1000);
    deny(true);
    await clock.advance(ttlMs / 2);
    assert.deepEqual(ids(), []);
    deny(false);
    await clock.advance(60_000);
    assert.deepEqual(ids(), [`billing ${web}`]);
    await stop();
  });

  test('follow the hint of the default SVID', async () => {
    const { clock, snapshots, ids, stop } = setUp(['billing'], 'internal');
    snapshots.set(snapshotOf(web, api));
    await clock.advance(1000);
    assert.deepEqual(ids(), [`billing ${api}`]);
    await stop();
  });

  test('are not asked for without an audience', async () => {
    const { clock, snapshots, asked, stop } = setUp([]);
    snapshots.set(snapshotOf(web));
    await clock.advance(ttlMs);
    assert.equal(asked(), 0);
    await stop();
  });
});
