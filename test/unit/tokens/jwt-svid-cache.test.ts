import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  AbortedError,
  AppError,
  LimitError,
  TimeoutError,
  UnavailableError,
} from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import type { JwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { parseSpiffeId, type SpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import { createJwtSvidCache, type JwtSvidCacheOptions } from '../../../src/tokens/jwt-svid-cache.ts';
import { unsignedJwtSvid } from '../../support/jwt.ts';
import { createManualClock, settled } from '../../support/manual-clock.ts';

const web = parseSpiffeId('spiffe://dev.local/web');
const api = parseSpiffeId('spiffe://dev.local/api');
const minuteMs = 60_000;
const ttlMs = 5 * minuteMs;
const start = Date.parse('2026-01-01T00:00:00Z');
const never = new AbortController().signal;

let serial = 0;

function mint(audience: string, spiffeId: SpiffeId, now: number): JwtSvid {
  serial += 1;
  return unsignedJwtSvid({ audience, spiffeId, now, ttlMs, jti: `${serial}` });
}

type Answer = (
  audience: string,
  spiffeId: SpiffeId,
  signal: AbortSignal,
) => Promise<readonly JwtSvid[]> | readonly JwtSvid[];

function setUp(overrides: Partial<JwtSvidCacheOptions> = {}) {
  const clock = createManualClock(start);
  const counts = { hit: 0, miss: 0, failed: 0, first: 0, renewal: 0 };
  const failures: string[] = [];
  const logged: string[] = [];
  const asked: string[] = [];
  const issue: Answer = (audience, spiffeId) => [mint(audience, spiffeId, clock.now())];
  const source = { answer: issue };
  const note = (fields: object, message: string): void => {
    logged.push(`${message} ${JSON.stringify(fields)}`);
  };
  const cache = createJwtSvidCache({
    fetch: async ({ audiences: [audience = ''], spiffeId }, signal) => {
      assert.ok(spiffeId !== undefined);
      asked.push(`${spiffeId} ${audience}`);
      return source.answer(audience, spiffeId, signal);
    },
    now: clock.now,
    sleep: clock.sleep,
    random: () => 1,
    log: { ...silentLogger, debug: note, info: note, warn: note, error: note },
    meter: {
      requested: (result) => (counts[result] += 1),
      issued: (kind) => (counts[kind] += 1),
      failed: (reason) => failures.push(reason),
    },
    maxEntries: 10,
    ...overrides,
  });
  const stop = new AbortController();
  const key = (audience = 'billing', spiffeId = web) => ({ audience, spiffeId });
  return {
    cache,
    clock,
    counts,
    failures,
    logged,
    asked,
    source,
    issue,
    key,
    get: (audience?: string, spiffeId?: SpiffeId) => cache.get(key(audience, spiffeId), never),
    run: () => {
      const done = cache.run(stop.signal);
      return async () => {
        stop.abort();
        await done;
      };
    },
  };
}

const unavailable: Answer = () => Promise.reject(new UnavailableError('agent is away'));
const refused: Answer = () => Promise.reject(new AppError('permission_denied', 'no identity issued'));

describe('a JWT-SVID cache', () => {
  it('asks once for an identity and an audience, and again for another of either', async () => {
    const { get, asked, counts } = setUp();
    const first = await get();
    assert.equal(await get(), first);
    assert.notEqual(await get('shop'), first);
    assert.notEqual(await get('billing', api), first);
    assert.deepEqual(asked, [`${web} billing`, `${web} shop`, `${api} billing`]);
    assert.deepEqual([counts.hit, counts.miss, counts.first], [1, 3, 3]);
  });

  it('makes one fetch for many that ask at once', async () => {
    const { get, asked } = setUp();
    const all = await Promise.all(Array.from({ length: 50 }, () => get()));
    assert.equal(new Set(all).size, 1);
    assert.equal(asked.length, 1);
  });

  it('lets one waiter go without taking the fetch from the others', async () => {
    const { cache, key, source, issue, asked } = setUp();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    source.answer = async (...request) => {
      await released;
      return issue(...request);
    };
    const impatient = new AbortController();
    const gone = cache.get(key(), impatient.signal);
    const patient = cache.get(key(), never);
    impatient.abort();
    await assert.rejects(gone, AbortedError);
    release();
    assert.equal((await patient).spiffeId, web);
    assert.equal(asked.length, 1);
  });

  it('renews at half-life when it was used, without anybody waiting', async () => {
    const { get, run, clock, asked, counts } = setUp();
    const stop = run();
    const first = await get();
    await get();
    await clock.advance(ttlMs / 2 - 1000);
    assert.equal(asked.length, 1);
    await clock.advance(2000);
    assert.equal(asked.length, 2);
    const second = await get();
    assert.ok(second.expiresAt > first.expiresAt);
    assert.equal(counts.renewal, 1);
    await stop();
  });

  it('renews one that lives shortly in time, though it was asked for only once', async () => {
    const { get, run, clock, asked, counts } = setUp();
    const stop = run();
    await get();
    await clock.advance(ttlMs / 2 + 10);
    assert.equal(asked.length, 2);
    assert.equal(counts.renewal, 1);
    await stop();
  });

  it('goes on renewing while fetches for others wait', async () => {
    const { cache, key, get, run, clock, source, issue } = setUp({ maxEntries: 30 });
    const stop = run();
    const ended = new AbortController();
    let seen = 0;
    const watching = (async () => {
      for await (const _ of cache.watch(key('watched'), ended.signal)) seen += 1;
    })();
    await clock.advance(1000);
    source.answer = (audience, ...rest) =>
      audience === 'watched' ? issue(audience, ...rest) : new Promise(() => undefined);
    const waiting = Promise.allSettled(Array.from({ length: 20 }, (_, i) => get(`slow ${i}`)));
    await clock.advance(ttlMs / 2 + 1000);
    assert.equal(seen, 2);
    ended.abort();
    cache.forget(() => true);
    await Promise.all([watching, waiting, stop()]);
  });

  it('does not renew what nobody asked for since it came', async () => {
    const { get, run, clock, asked } = setUp();
    const stop = run();
    await get();
    await clock.advance(ttlMs);
    assert.equal(asked.length, 2, 'the get that fetched counts as a use');
    await clock.advance(10 * ttlMs);
    assert.equal(asked.length, 2);
    await stop();
  });

  it('serves the old one until it expires when renewal fails, and asks ever more rarely', async () => {
    const { cache, key, get, run, clock, asked, source, failures, logged } = setUp();
    const stop = run();
    const first = await get();
    source.answer = unavailable;
    await clock.advance(ttlMs - 1000);
    assert.equal(await get(), first);
    assert.ok(asked.length >= 5 && asked.length <= 12, `${asked.length} fetches`);
    assert.ok(failures.every((reason) => reason === 'unavailable'));
    assert.equal(logged.filter((line) => line.startsWith('JWT-SVID is not issued')).length, 1);
    await clock.advance(2000);
    await assert.rejects(cache.get(key(), never), /agent is away/);
    await stop();
  });

  it('recovers after failures', async () => {
    const { get, run, clock, source, issue } = setUp();
    const stop = run();
    const first = await get();
    source.answer = unavailable;
    await clock.advance(ttlMs / 2 + 1000);
    source.answer = issue;
    await clock.advance(40_000);
    assert.ok((await get()).expiresAt > first.expiresAt);
    await stop();
  });

  it('repeats a failure for a moment instead of hammering the source', async () => {
    const { get, clock, asked, source, issue } = setUp();
    source.answer = unavailable;
    await assert.rejects(get(), UnavailableError);
    await assert.rejects(get(), UnavailableError);
    assert.equal(asked.length, 1);
    source.answer = issue;
    await clock.advance(101);
    assert.equal((await get()).spiffeId, web);
  });

  for (const [mode, kept] of [
    ['drop', false],
    ['keep', true],
  ] as const) {
    it(`on PERMISSION_DENIED at renewal with ${mode} ${kept ? 'serves on' : 'serves nothing any more'}`, async () => {
      const { get, run, clock, source } = setUp({ onPermissionDenied: mode });
      const stop = run();
      const first = await get();
      source.answer = refused;
      await clock.advance(ttlMs / 2 + 1000);
      if (kept) assert.equal(await get(), first);
      else await assert.rejects(get(), /no identity issued/);
      await stop();
    });
  }

  it('never takes a JWT-SVID of another identity or audience, or an expired one', async () => {
    const { get, clock, source, issue } = setUp();
    source.answer = (audience, _, signal) => issue(audience, api, signal);
    await assert.rejects(get(), UnavailableError);
    source.answer = (_, spiffeId, signal) => issue('other', spiffeId, signal);
    await assert.rejects(get('shop'), UnavailableError);
    source.answer = (audience, spiffeId) => [mint(audience, spiffeId, clock.now() - ttlMs)];
    await assert.rejects(get('old'), /expired/);
  });

  it('gives up on a source that hangs', async () => {
    const { get, source } = setUp({ fetchTimeoutMs: 5 });
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    source.answer = (_, _id, signal) =>
      new Promise(() => signal.addEventListener('abort', () => resolve(), { once: true }));
    await assert.rejects(get(), TimeoutError);
    await aborted;
  });

  it('forgets an identity that is gone, and refuses who waits for it', async () => {
    const { cache, get, asked, source, issue } = setUp();
    await get();
    await get('billing', api);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    source.answer = async (...request) => {
      await released;
      return issue(...request);
    };
    const waiting = get('shop');
    await settled();
    cache.forget((id) => id === web);
    release();
    await assert.rejects(waiting, /identity was dropped/);
    const before = asked.length;
    await get('billing', api);
    assert.equal(asked.length, before, 'the other identity is still held');
    await get();
    assert.equal(asked.length, before + 1);
  });

  it('keeps at most so many, and lets go of the least recently used', async () => {
    const { get, asked } = setUp({ maxEntries: 2 });
    await get('a');
    await get('b');
    await get('a');
    await get('c');
    await get('a');
    assert.equal(asked.length, 3);
    await get('b');
    assert.equal(asked.length, 4);
  });

  it('refuses more fetches at once than it may hold', async () => {
    const { get, cache, source } = setUp({ maxEntries: 2 });
    source.answer = () => new Promise(() => undefined);
    const waiting = Promise.allSettled([get('a'), get('b')]);
    await assert.rejects(get('c'), LimitError);
    cache.forget(() => true);
    await waiting;
  });

  it('refuses an empty or endless audience', async () => {
    const { get, asked } = setUp();
    await assert.rejects(get(''), AppError);
    await assert.rejects(get('x'.repeat(2000)), AppError);
    assert.deepEqual(asked, []);
  });

  it('gives a watcher the current one and each renewal, though nobody asks', async () => {
    const { cache, key, run, clock } = setUp();
    const stop = run();
    const seen: (JwtSvid | undefined)[] = [];
    const ended = new AbortController();
    const watching = (async () => {
      for await (const svid of cache.watch(key(), ended.signal)) seen.push(svid);
    })();
    await clock.advance(3 * ttlMs);
    assert.ok(seen.length >= 6 && seen.length <= 7, `${seen.length} seen`);
    assert.ok(seen.every((svid, i) => i === 0 || (svid?.expiresAt ?? 0) > (seen[i - 1]?.expiresAt ?? 0)));
    ended.abort();
    await watching;
    await stop();
  });

  it('goes on trying for a watcher while the source is away', async () => {
    const { cache, key, run, clock, source, issue } = setUp();
    source.answer = unavailable;
    const stop = run();
    const seen: (JwtSvid | undefined)[] = [];
    const ended = new AbortController();
    const watching = (async () => {
      for await (const svid of cache.watch(key(), ended.signal)) seen.push(svid);
    })();
    await clock.advance(minuteMs);
    assert.equal(seen.length, 0);
    source.answer = issue;
    await clock.advance(minuteMs);
    assert.equal(seen.length, 1);
    ended.abort();
    await watching;
    await stop();
  });

  it('does not ask in a loop when the source repeats a JWT-SVID that is past its half', async () => {
    const { get, run, clock, asked, source } = setUp();
    const old = mint('billing', web, start - 0.9 * ttlMs);
    source.answer = () => [old];
    const stop = run();
    await get();
    await clock.advance(20_000);
    assert.ok(asked.length <= 10, `${asked.length} fetches`);
    await stop();
  });

  it('never logs a token', async () => {
    const { get, run, clock, source, issue, logged } = setUp();
    const stop = run();
    const { token } = await get();
    source.answer = unavailable;
    await clock.advance(ttlMs * 2);
    await get().catch(() => undefined);
    source.answer = issue;
    await clock.advance(minuteMs);
    await get();
    await stop();
    assert.ok(logged.length >= 2);
    assert.ok(!logged.some((line) => line.includes(token) || /eyJ/.test(line)));
  });
});
