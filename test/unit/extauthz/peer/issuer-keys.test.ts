import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import fc from 'fast-check';
import { createIssuerKeys, parseIssuerKeys } from '../../../../src/extauthz/peer/issuer-keys.ts';
import { createHttpClient } from '../../../../src/http/client.ts';
import { AbortedError, AppError, LimitError, UnavailableError } from '../../../../src/runtime/errors.ts';
import { silentLogger } from '../../../../src/runtime/log.ts';
import { startJwtIssuer } from '../../../support/jwt-issuer.ts';

const never = new AbortController().signal;

async function setUp(t: TestContext) {
  let time = Date.parse('2026-06-01T12:00:00Z');
  const issuer = await startJwtIssuer(t);
  const http = createHttpClient({ maxSockets: 2 });
  t.after(() => http.close());
  const outcomes: string[] = [];
  const warnings: string[] = [];
  const keys = createIssuerKeys({
    url: issuer.jwksUrl,
    http,
    now: () => time,
    log: { ...silentLogger, warn: (_fields, message) => warnings.push(message) },
    meter: { keysFetched: (outcome) => outcomes.push(outcome) },
  });
  return {
    issuer,
    keys,
    outcomes,
    warnings,
    pass: (ms: number) => {
      time += ms;
    },
    ids: async () => (await keys.current(never)).map(({ keyId }) => keyId),
  };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i += 1) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.ok(condition());
}

describe("an issuer's keys", () => {
  it('are fetched once, by the first who needs them, for all who wait', async (t) => {
    const { issuer, ids } = await setUp(t);
    assert.equal(issuer.fetches(), 0);
    const all = await Promise.all([ids(), ids(), ids()]);
    assert.deepEqual(all, [['key-1'], ['key-1'], ['key-1']]);
    assert.equal(issuer.fetches(), 1);
  });

  it('are looked at again for an unknown key, but not more often than every 10 s', async (t) => {
    const { issuer, keys, pass, ids } = await setUp(t);
    await ids();
    await issuer.rotate();
    assert.equal((await keys.refreshed(never)).length, 1);
    assert.equal(issuer.fetches(), 1);
    pass(10_000);
    assert.equal((await keys.refreshed(never)).length, 2);
    await keys.refreshed(never);
    assert.equal(issuer.fetches(), 2);
  });

  it('are renewed in the background when they are old; nobody waits', async (t) => {
    const { issuer, outcomes, pass, ids } = await setUp(t);
    await ids();
    await issuer.rotate();
    pass(5 * 60_000);
    assert.deepEqual(await ids(), ['key-1']);
    await until(() => outcomes.length === 2);
    assert.deepEqual(await ids(), ['key-1', 'key-2']);
  });

  it('that were good last stay while the issuer fails, for a day and not longer', async (t) => {
    const { issuer, keys, outcomes, warnings, pass, ids } = await setUp(t);
    await ids();
    issuer.failWith(500);
    pass(3_600_000);
    assert.deepEqual(await ids(), ['key-1']);
    await until(() => outcomes.includes('failed'));
    pass(10_000);
    assert.equal((await keys.refreshed(never)).length, 1);
    assert.deepEqual(warnings, ['keys of the issuer cannot be fetched; last good ones stay']);
    pass(24 * 3_600_000);
    await assert.rejects(ids(), UnavailableError);
  });

  it('that were never held are an error, repeated for a moment without another fetch', async (t) => {
    const { issuer, pass, ids } = await setUp(t);
    issuer.failWith(503);
    await assert.rejects(ids(), /status 503/);
    await assert.rejects(ids(), /status 503/);
    assert.equal(issuer.fetches(), 1);
    issuer.failWith(undefined);
    pass(2_000);
    assert.deepEqual(await ids(), ['key-1']);
  });

  it('do not hold up a caller who goes away', async (t) => {
    const { issuer, keys } = await setUp(t);
    issuer.failWith('hang');
    const caller = new AbortController();
    const waiting = keys.current(caller.signal);
    caller.abort();
    await assert.rejects(waiting, AbortedError);
  });

  it('are not taken from a redirect', async (t) => {
    const { issuer, ids } = await setUp(t);
    issuer.failWith(302);
    await assert.rejects(ids(), /status 302/);
  });
});

describe('a JWK Set', () => {
  const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' });
  const parse = (...keys: readonly unknown[]) =>
    parseIssuerKeys(JSON.stringify({ keys })).map((key) => key.keyId);

  it('gives its signing keys and drops all others one by one', () => {
    assert.deepEqual(
      parse(
        { ...jwk, kid: 'a', use: 'sig' },
        { ...jwk, kid: 'b' },
        { ...jwk, kid: 'c', use: 'enc' },
        { kty: 'oct', k: 'AAAA', kid: 'd' },
        { kty: 'OKP', crv: 'Ed25519', x: 'AAAA', kid: 'e' },
        { ...jwk, x: 'AAAA', kid: 'f' },
        'rubbish',
      ),
      ['a', 'b'],
    );
    assert.deepEqual(parse(), []);
  });

  it('with too many keys is refused', () => {
    assert.throws(() => parse(...Array.from({ length: 257 }, () => jwk)), LimitError);
  });

  it('of any text is keys or an AppError', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.jsonValue().map((keys) => JSON.stringify({ keys })),
        ),
        (text) => {
          try {
            assert.ok(Array.isArray(parseIssuerKeys(text)));
          } catch (error) {
            assert.ok(error instanceof AppError);
          }
        },
      ),
    );
  });
});
