import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { before, describe, it } from 'node:test';
import fc from 'fast-check';
import { CompactSign } from 'jose';
import type { JwtAuthority } from '../../../src/spiffe/bundle.ts';
import { verifyForeignJwt } from '../../../src/spiffe/foreign-jwt.ts';
import { parseJwtAuthority } from '../../../src/spiffe/jwk.ts';
import { unsignedToken } from '../../support/jwt.ts';

const now = Date.parse('2026-06-01T12:00:00Z');
const seconds = now / 1000;
const claims = { iss: 'https://login.test', aud: 'registry', sub: '7', exp: seconds + 60 };

type Key = Readonly<{ kid: string; privateKey: KeyObject; authority: JwtAuthority }>;

function createKey(kid: string, type: 'ec' | 'rsa'): Key {
  const { publicKey, privateKey } =
    type === 'ec'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: 2048 });
  const authority = parseJwtAuthority({ ...publicKey.export({ format: 'jwk' }), kid });
  assert.ok(authority !== undefined);
  return { kid, privateKey, authority };
}

function sign(key: Key, payload: object, header: object = {}): Promise<string> {
  const alg = key.authority.publicKey.asymmetricKeyType === 'ec' ? 'ES256' : 'RS256';
  return new CompactSign(Buffer.from(JSON.stringify(payload)))
    .setProtectedHeader({ alg, kid: key.kid, ...header })
    .sign(key.privateKey);
}

describe('a JWT of another issuer', () => {
  let ec: Key;
  let rsa: Key;

  before(() => {
    ec = createKey('ec', 'ec');
    rsa = createKey('rsa', 'rsa');
  });

  const verify = (token: string, changed: object = {}) =>
    verifyForeignJwt(token, {
      issuer: 'https://login.test',
      audience: 'registry',
      keys: [ec.authority, rsa.authority],
      now,
      ...changed,
    });

  it('is believed when a key of its issuer signed it, for us and for now', async () => {
    for (const key of [ec, rsa]) {
      assert.deepEqual(await verify(await sign(key, claims)), {
        valid: true,
        subject: '7',
        expiresAt: now + 60_000,
      });
    }
    const typed = await sign(ec, { ...claims, aud: ['web', 'registry'], nbf: seconds }, { typ: 'at+jwt' });
    assert.equal((await verify(typed)).valid, true);
  });

  it('without kid is tried with every key that fits', async () => {
    assert.equal((await verify(await sign(rsa, claims, { kid: undefined }))).valid, true);
  });

  const bad: Readonly<Record<string, Readonly<{ change: object; message: RegExp }>>> = {
    'of another issuer': { change: { iss: 'https://evil.test' }, message: /another issuer/ },
    'of no issuer': { change: { iss: undefined }, message: /another issuer/ },
    'of a list of issuers': { change: { iss: ['https://login.test'] }, message: /another issuer/ },
    'for another audience': { change: { aud: 'elsewhere' }, message: /another audience/ },
    'without audience': { change: { aud: undefined }, message: /no aud/ },
    'without expiry': { change: { exp: undefined }, message: /no exp/ },
    'that expires this very moment': { change: { exp: seconds }, message: /expired/ },
    'that is not valid yet': { change: { nbf: seconds + 1 }, message: /not valid yet/ },
    'without subject': { change: { sub: undefined }, message: /no sub/ },
    'with a subject that is no text': { change: { sub: 7 }, message: /no sub/ },
  };
  for (const [name, { change, message }] of Object.entries(bad)) {
    it(`${name} is refused`, async () => {
      const result = await verify(await sign(ec, { ...claims, ...change }));
      assert.ok(!result.valid && result.reason === 'refused');
      assert.match(result.message, message);
    });
  }

  it('of an unknown key says so, which newer keys may mend', async () => {
    const result = await verify(await sign(ec, claims), { keys: [rsa.authority] });
    assert.ok(!result.valid && result.reason === 'unknown_key');
    assert.ok(!(await verify(await sign(ec, claims), { keys: [] })).valid);
  });

  it('under the name of a key that did not sign it is refused', async () => {
    const result = await verify(await sign(createKey('ec', 'ec'), claims));
    assert.ok(!result.valid && result.reason === 'refused');
    const confused = await verify(await sign(ec, claims, { kid: 'rsa' }));
    assert.ok(!confused.valid && confused.reason === 'refused');
  });

  it('with a symmetric algorithm or none is refused, whatever key it names', async () => {
    for (const alg of ['none', 'HS256', 'HS512', 'EdDSA']) {
      const result = await verify(unsignedToken({ alg, kid: 'ec' }, claims));
      assert.ok(!result.valid && result.reason === 'refused', alg);
    }
  });

  it('with anything changed after signing is refused', async () => {
    const [header, , signature] = (await sign(ec, claims)).split('.');
    const payload = Buffer.from(JSON.stringify({ ...claims, sub: '8' })).toString('base64url');
    const result = await verify(`${header}.${payload}.${signature}`);
    assert.ok(!result.valid);
  });

  it('of any text is an answer that does not quote it, never an error', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.tuple(fc.json(), fc.json()).map(([a, b]) => `${btoa(encodeURI(a))}.${btoa(encodeURI(b))}.AA`),
          fc
            .jsonValue()
            .map((value) => unsignedToken({ alg: 'ES256', kid: 'ec' }, { ...claims, sub: value })),
        ),
        async (token) => {
          const result = await verify(token);
          assert.equal(result.valid, false);
          if (!result.valid && token.length > 20) assert.ok(!result.message.includes(token));
        },
      ),
      { numRuns: 200 },
    );
  });
});
