import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AbortedError, AppError } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import type { JwtBundleSet } from '../../../src/spiffe/bundle.ts';
import { verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../../../src/spiffe/verify.ts';
import type { X509Context } from '../../../src/spiffe/x509-context.ts';
import { createDevSource, type DevSource } from '../../../src/workload/dev.ts';
import type { IdentitySource } from '../../../src/workload/identity-source.ts';

const trustDomain = parseTrustDomain('dev.local');
const spiffeIds = ['spiffe://dev.local/web', 'spiffe://dev.local/api'].map(parseSpiffeId);
const hourMs = 3_600_000;
const start = Date.parse('2026-01-01T00:00:00Z');

/** A source under a clock that moves only when its run() sleeps. */
async function createClockedSource(svidTtlMs = hourMs, jwtSvidTtlMs = 300_000) {
  let time = start;
  let stopAt = start;
  const source = await createDevSource({
    trustDomain,
    spiffeIds,
    svidTtlMs,
    jwtSvidTtlMs,
    now: () => time,
    async sleep(ms) {
      if (time + ms > stopAt) throw new AbortedError();
      time += ms;
    },
    log: silentLogger,
  });
  return {
    source,
    now: () => time,
    /** Lets run() work for that long. */
    runFor: async (ms: number) => {
      stopAt = time + ms;
      await source.run(new AbortController().signal);
      time = stopAt;
    },
    /** As a machine that slept. */
    jump: (ms: number) => {
      time += ms;
    },
  };
}

async function current(source: IdentitySource): Promise<X509Context> {
  for await (const event of source.watchX509(new AbortController().signal)) {
    assert.equal(event.kind, 'update');
    if (event.kind === 'update') return event.value;
  }
  throw new Error('no context');
}

const serials = ({ svids }: X509Context) => svids.map(({ chain }) => chain[0].serial);
const authoritiesOf = ({ bundles }: X509Context) =>
  bundles.get(trustDomain)?.authorities.map(({ fingerprint }) => fingerprint) ?? [];

function assertVerifies(context: X509Context, now: number): void {
  for (const svid of context.svids) {
    const verification = verifyX509Svid(svid.chain, context.bundles, now);
    assert.ok(verification.valid, verification.valid ? '' : verification.message);
    assert.equal(verification.spiffeId, svid.spiffeId);
  }
}

describe('dev source', () => {
  it('has an X509-SVID for each ID, in order, valid for its time against its own bundle', async () => {
    const { source } = await createClockedSource();
    const context = await current(source);
    assert.deepEqual(
      context.svids.map(({ spiffeId }) => spiffeId),
      spiffeIds,
    );
    assert.equal(context.svids[0].chain[0].notAfter, start + hourMs);
    assertVerifies(context, start);
  });

  it('renews at half of the life, not before', async () => {
    const { source, runFor } = await createClockedSource();
    const before = await current(source);
    await runFor(hourMs / 2 - 1);
    assert.deepEqual(serials(await current(source)), serials(before));
    await runFor(1);
    const after = await current(source);
    for (const [index, serial] of serials(after).entries()) assert.notEqual(serial, serials(before)[index]);
    assert.equal(after.svids[0].chain[0].notAfter, start + hourMs / 2 + hourMs);
    assert.deepEqual(authoritiesOf(after), authoritiesOf(before));
  });

  it('renews at once after the machine has slept past the time', async () => {
    const { source, runFor, jump, now } = await createClockedSource();
    jump(5 * hourMs);
    await runFor(0);
    assertVerifies(await current(source), now());
  });

  it('issues at once when told to rotate, and counts the half-life from there', async () => {
    const { source, runFor } = await createClockedSource();
    const first = await current(source);
    await runFor(hourMs / 4);
    await source.rotate();
    const second = await current(source);
    assert.notDeepEqual(serials(second), serials(first));
    await runFor(hourMs / 4);
    assert.deepEqual(serials(await current(source)), serials(second));
    await runFor(hourMs / 4);
    assert.notDeepEqual(serials(await current(source)), serials(second));
  });

  it('rotates its authority so that no SVID outlives it and none is signed by an unpublished one', async () => {
    const { source, runFor, now } = await createClockedSource();
    let before = await current(source);
    const signers = new Set<string>();
    for (let halves = 0; halves < 100; halves += 1) {
      await runFor(hourMs / 2);
      const context = await current(source);
      assertVerifies(context, now());
      assertVerifies(context, now() + hourMs - 1);
      // Whoever has not heard of the newest bundle yet accepts the new SVID, and the other way round.
      assertVerifies({ ...context, bundles: before.bundles }, now());
      assertVerifies({ ...before, bundles: context.bundles }, now());
      assert.ok(authoritiesOf(context).length <= 2);
      signers.add(authoritiesOf(context)[0] ?? '');
      before = context;
    }
    assert.ok(signers.size >= 3, `${signers.size} authorities in 50 hours`);
  });

  it('has an authority that lives when the machine slept past the end of the last one, and of the next', async () => {
    for (const published of [1, 2]) {
      const { source, runFor, jump, now } = await createClockedSource();
      while (authoritiesOf(await current(source)).length < published) await runFor(hourMs / 2);
      jump(40 * 24 * hourMs);
      await runFor(0);
      assertVerifies(await current(source), now());
    }
  });

  it('mints JWT-SVIDs for every ID or the one asked for, good for their audiences', async () => {
    const { source, now } = await createClockedSource();
    const signal = new AbortController().signal;
    const all = await source.fetchJwtSvids({ audiences: ['a', 'b'] }, signal);
    assert.deepEqual(
      all.map(({ spiffeId }) => spiffeId),
      spiffeIds,
    );
    const [one, ...others] = await source.fetchJwtSvids({ audiences: ['a'], spiffeId: spiffeIds[1] }, signal);
    assert.ok(one !== undefined && others.length === 0);
    assert.deepEqual([one.spiffeId, one.expiresAt], [spiffeIds[1], start + 300_000]);
    for await (const event of source.watchJwtBundles(signal)) {
      assert.ok(event.kind === 'update');
      assert.equal((await verifyJwtSvid(one.token, ['a'], event.value, now())).valid, true);
      break;
    }
  });

  it('rotates its JWT key so that no JWT-SVID outlives it and none is signed by an unpublished one', async () => {
    const signal = new AbortController().signal;
    const bundlesOf = async (source: DevSource): Promise<JwtBundleSet> => {
      for await (const event of source.watchJwtBundles(signal))
        if (event.kind === 'update') return event.value;
      throw new Error('no bundles');
    };
    // Shorter and longer than an X509-SVID lives.
    for (const ttlMs of [hourMs / 12, 3 * hourMs]) {
      const { source, runFor, now } = await createClockedSource(hourMs, ttlMs);
      const keys = new Set<string>();
      let bundles = await bundlesOf(source);
      let tokens: { token: string; expiresAt: number }[] = [];
      for (let halves = 0; halves < 100; halves += 1) {
        await runFor(hourMs / 2);
        const before = bundles;
        bundles = await bundlesOf(source);
        const [minted] = await source.fetchJwtSvids({ audiences: ['a'] }, signal);
        assert.ok(minted !== undefined);
        const valid = async (token: string, held: JwtBundleSet) =>
          (await verifyJwtSvid(token, ['a'], held, now())).valid;
        assert.ok(
          await valid(minted.token, before),
          'whoever has not heard of the newest bundle yet accepts it',
        );
        tokens = [...tokens, minted].filter(({ expiresAt }) => expiresAt > now());
        for (const { token } of tokens) assert.ok(await valid(token, bundles), `half hour ${halves}`);
        const { authorities } = bundles.get(trustDomain) ?? { authorities: [] };
        assert.ok(authorities.length >= 1 && authorities.length <= 2);
        keys.add(authorities[0]?.keyId ?? '');
      }
      assert.ok(keys.size >= 3, `${keys.size} keys in 50 hours`);
    }
  });

  it('mints for no ID that it does not have, and never without an audience', async () => {
    const { source } = await createClockedSource();
    const signal = new AbortController().signal;
    const code = (expected: string) => (error: unknown) =>
      error instanceof AppError && error.code === expected;
    const foreign = parseSpiffeId('spiffe://dev.local/other');
    await assert.rejects(
      source.fetchJwtSvids({ audiences: ['a'], spiffeId: foreign }, signal),
      code('permission_denied'),
    );
    await assert.rejects(source.fetchJwtSvids({ audiences: [] }, signal), code('invalid_argument'));
  });

  it('tells a watcher of each renewal until its signal fires', async () => {
    const { source } = await createClockedSource();
    const stopping = new AbortController();
    const seen: string[] = [];
    for await (const event of source.watchX509(stopping.signal)) {
      assert.ok(event.kind === 'update');
      seen.push(event.value.svids[0].chain[0].serial);
      if (seen.length === 3) stopping.abort();
      else await source.rotate();
    }
    assert.equal(new Set(seen).size, 3);
  });

  it('refuses identities that it cannot have', async () => {
    const create = (ids: readonly string[]): Promise<DevSource> =>
      createDevSource({
        trustDomain,
        spiffeIds: ids.map(parseSpiffeId),
        svidTtlMs: hourMs,
        jwtSvidTtlMs: hourMs,
        now: Date.now,
        sleep: async () => {},
        log: silentLogger,
      });
    await assert.rejects(create([]), /at least one SPIFFE ID/);
    await assert.rejects(create(['spiffe://other.local/a']), /is not of the trust domain dev\.local/);
    await assert.rejects(create(['spiffe://dev.local']), /has no path/);
  });
});
