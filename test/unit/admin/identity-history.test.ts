import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createIdentityHistory, type IdentityChange } from '../../../src/admin/identity-history.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, jwtBundles, trustIn, x509Bundle, x509Bundles } from '../../support/ca.ts';
import { settled } from '../../support/manual-clock.ts';

const own = parseTrustDomain('example.org');
const partner = parseTrustDomain('partner.example');
const authority = await createTestAuthority('example.org');
const other = await createTestAuthority('partner.example');
const signer = await createJwtSigner({ keyId: '1' });
const [first, second] = [
  await authority.svid('spiffe://example.org/web'),
  await authority.svid('spiffe://example.org/web'),
];

function follow() {
  const snapshots = createLatest<TrustSnapshot>(emptySnapshot);
  const changes: string[] = [];
  let now = 0;
  const tell = (change: IdentityChange): void => {
    changes.push(change.kind === 'svids' ? `svids ${change.svids.length}` : `bundle ${change.trustDomain}`);
  };
  const history = createIdentityHistory({ snapshots, now: () => now, onChange: tell });
  const stop = new AbortController();
  const running = history.run(stop.signal);
  return {
    history,
    take: async (at: number, snapshot: Partial<TrustSnapshot>): Promise<readonly string[]> => {
      now = at;
      changes.length = 0;
      snapshots.set({ ...snapshots.current(), ...snapshot });
      await settled();
      return [...changes];
    },
    end: async () => {
      stop.abort();
      await running;
    },
  };
}

describe('identity history', () => {
  it('tells a new X.509-SVID, a rotated one and one that is gone, and since when each is held', async () => {
    const { history, take, end } = follow();
    await settled();
    assert.deepEqual(await take(10, { svids: [first], bundles: trustIn(authority) }), [
      'svids 1',
      'bundle example.org',
    ]);
    assert.equal(history.rotatedAt(first), 10);
    assert.deepEqual(await take(20, { version: 2 }), []);
    assert.equal(history.rotatedAt(first), 10);
    assert.deepEqual(await take(30, { svids: [second] }), ['svids 1']);
    assert.equal(history.rotatedAt(second), 30);
    assert.deepEqual(await take(40, { svids: [] }), ['svids 0']);
    await end();
  });

  it('tells each bundle that is new, different or gone, X.509 or JWT, and no other', async () => {
    const { history, take, end } = follow();
    const both = x509Bundles(x509Bundle('example.org', [authority]), x509Bundle('partner.example', [other]));
    await take(10, { bundles: both });
    assert.equal(history.bundleChangedAt(partner), 10);
    assert.deepEqual(await take(20, { bundles: new Map(both) }), []);
    assert.deepEqual(await take(30, { jwtBundles: jwtBundles({ 'example.org': [signer.authority] }) }), [
      'bundle example.org',
    ]);
    assert.equal(history.bundleChangedAt(own), 30);
    assert.equal(history.bundleChangedAt(partner), 10);
    const emptied = x509Bundles(x509Bundle('example.org', [authority]), x509Bundle('partner.example', []));
    assert.deepEqual(await take(40, { bundles: emptied }), ['bundle partner.example']);
    assert.deepEqual(await take(50, { bundles: trustIn(authority) }), ['bundle partner.example']);
    await end();
  });
});
