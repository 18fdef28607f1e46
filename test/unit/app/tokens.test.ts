import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createTokens } from '../../../src/app/tokens.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { runTasks } from '../../../src/runtime/tasks.ts';
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import type { IdentitySource } from '../../../src/workload/identity-source.ts';
import { createTestAuthority, testNow } from '../../support/ca.ts';
import { unsignedJwtSvid } from '../../support/jwt.ts';
import { createManualClock } from '../../support/manual-clock.ts';

const web = parseSpiffeId('spiffe://example.org/web');
const api = parseSpiffeId('spiffe://example.org/api');
const agent = parseSpiffeId('spiffe://example.org/agent/7');
const never = new AbortController().signal;
const svids = new Map<SpiffeId, X509Svid>();

before(async () => {
  const ca = await createTestAuthority('example.org');
  for (const id of [web, api]) svids.set(id, await ca.svid(id));
});

function setUp(text: string) {
  const clock = createManualClock(testNow);
  const asked: string[] = [];
  const source: IdentitySource = {
    name: 'workload_api',
    async *watchX509() {},
    async *watchJwtBundles() {},
    fetchJwtSvids: ({ audiences: [audience = ''], spiffeId = web }) => {
      asked.push(`${spiffeId} ${audience}`);
      return Promise.resolve([
        unsignedJwtSvid({ audience, spiffeId, now: clock.now(), ttlMs: 300_000, jti: `${asked.length}` }),
      ]);
    },
  };
  const snapshots = createLatest<TrustSnapshot>(emptySnapshot);
  const { config } = loadConfig({ text, path: undefined, env: {} });
  const tokens = createTokens(config, {
    source,
    snapshots,
    clock: { ...clock, monotonicNow: clock.now, random: () => 1 },
    log: silentLogger,
    meter: { requested() {}, issued() {}, failed() {} },
  });
  const stop = new AbortController();
  const running = runTasks(stop.signal, tokens.tasks);
  return {
    tokens,
    asked,
    clock,
    get: (spiffeId: SpiffeId) => tokens.cache.get({ audience: 'billing', spiffeId }, never),
    hold: async (...ids: readonly SpiffeId[]) => {
      snapshots.set({
        ...emptySnapshot,
        version: 1,
        trustDomain: parseTrustDomain('example.org'),
        svids: ids.map((id) => svids.get(id)).filter((svid) => svid !== undefined),
      });
      await clock.advance(10);
    },
    end: async () => {
      stop.abort();
      await running;
    },
  };
}

describe('the tokens of the program', () => {
  it('are at hand for SDS and for injection before anybody asks, once there is an identity', async () => {
    const { asked, clock, hold, end } = setUp(
      'sds: {jwt_audiences: [billing]}\next_authz: {inject_jwt_svid: [{audience: audit}, {audience: billing}]}',
    );
    await clock.advance(1000);
    assert.equal(asked.length, 0);
    await hold(web, api);
    assert.deepEqual(
      asked.toSorted((a, b) => a.localeCompare(b)),
      [`${web} audit`, `${web} billing`],
    );
    await end();
  });

  it('go with their identity, those of the others stay', async () => {
    const { asked, get, hold, end } = setUp('');
    await hold(web, api);
    await get(web);
    await get(api);
    await hold(web);
    await get(web);
    assert.equal(asked.length, 2);
    await get(api);
    assert.equal(asked.length, 3);
    await end();
  });

  it('of identities that a bridge maps stay while any identity is held, and go with the last', async () => {
    const { asked, get, hold, end } = setUp('');
    await hold(web);
    await get(agent);
    await hold(web, api);
    await get(agent);
    assert.equal(asked.length, 1);
    await hold();
    await get(agent);
    assert.equal(asked.length, 2);
    await end();
  });
});
