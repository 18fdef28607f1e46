import assert from 'node:assert/strict';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import type { JwtAuthority } from '../../../src/spiffe/bundle.ts';
import type { JwtReason } from '../../../src/spiffe/jwt-parse.ts';
import { decodeJwtSvid, verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { jwtBundles, testNow } from '../../support/ca.ts';

type Key = Readonly<{ publicKey: KeyObject; privateKey: KeyObject }>;

const ec = (namedCurve: string): Key => generateKeyPairSync('ec', { namedCurve });
const rsa = (modulusLength: number): Key => generateKeyPairSync('rsa', { modulusLength });
const p256 = ec('P-256');
const p384 = ec('P-384');
const p521 = ec('P-521');
const rsa2048 = rsa(2048);
const other = ec('P-256');

const seconds = Math.floor(testNow / 1000);
const header = { alg: 'ES256', kid: 'k256', typ: 'JWT' };
const claims = { sub: 'spiffe://example.org/workload', aud: ['billing'], exp: seconds + 60 };

function authority(keyId: string, { publicKey }: Key, members: object = {}): JwtAuthority {
  return { keyId, publicKey, jwk: { ...publicKey.export({ format: 'jwk' }), kid: keyId, ...members } };
}

const bundles = jwtBundles({
  'example.org': [
    authority('k256', p256),
    authority('k384', p384),
    authority('k521', p521),
    authority('krsa', rsa2048),
  ],
  'empty.example': [],
});

function encode(part: unknown): string {
  return Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
}

function signature(alg: string, key: KeyObject, input: string): Buffer {
  const bytes = Buffer.from(input);
  const hash = `sha${alg.slice(2)}`;
  if (alg.startsWith('HS')) {
    return createHmac(hash, key.export({ type: 'pkcs8', format: 'der' }))
      .update(bytes)
      .digest();
  }
  if (alg.startsWith('PS')) {
    const saltLength = constants.RSA_PSS_SALTLEN_DIGEST;
    return sign(hash, bytes, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength });
  }
  return sign(hash, bytes, { key, dsaEncoding: 'ieee-p1363' });
}

/** A token with these parts, signed with the right algorithm unless the key says otherwise. */
function token(
  changes: { header?: object; claims?: object; key?: Key; rawHeader?: string; rawClaims?: string } = {},
): string {
  const fullHeader = { ...header, ...changes.header };
  const input = `${encode(changes.rawHeader ?? fullHeader)}.${encode(changes.rawClaims ?? { ...claims, ...changes.claims })}`;
  const alg = /^[A-Z]{2}\d{3}$/.test(fullHeader.alg) ? fullHeader.alg : 'ES256';
  return `${input}.${signature(alg, (changes.key ?? p256).privateKey, input).toString('base64url')}`;
}

async function assertValid(text: string, audiences: readonly string[] = ['billing']): Promise<void> {
  const result = await verifyJwtSvid(text, audiences, bundles, testNow);
  assert.ok(result.valid, JSON.stringify(result));
}

async function assertRefused(text: string, reason: JwtReason, set = bundles): Promise<void> {
  const result = await verifyJwtSvid(text, ['billing'], set, testNow);
  assert.ok(!result.valid);
  assert.equal(result.reason, reason, result.message);
}

test('a token of the bundle is valid and says for whom, until when and what', async () => {
  assert.deepEqual(await verifyJwtSvid(token(), ['other', 'billing'], bundles, testNow), {
    valid: true,
    spiffeId: claims.sub,
    trustDomain: 'example.org',
    audiences: ['billing'],
    expiresAt: (seconds + 60) * 1000,
    claims,
  });
});

for (const [alg, kid, key] of [
  ['ES256', 'k256', p256],
  ['ES384', 'k384', p384],
  ['ES512', 'k521', p521],
  ['RS256', 'krsa', rsa2048],
  ['RS384', 'krsa', rsa2048],
  ['RS512', 'krsa', rsa2048],
  ['PS256', 'krsa', rsa2048],
  ['PS384', 'krsa', rsa2048],
  ['PS512', 'krsa', rsa2048],
] as const) {
  test(`${alg} is accepted`, () => assertValid(token({ header: { alg, kid }, key })));
  test(`${alg} without kid is accepted`, () => assertValid(token({ header: { alg, kid: undefined }, key })));
  test(`${alg} of another key is refused`, async () => {
    const stranger = alg.startsWith('ES') ? ec(`P-${alg === 'ES512' ? 521 : alg.slice(2)}`) : rsa(2048);
    await assertRefused(token({ header: { alg, kid }, key: stranger }), 'bad_signature');
    await assertRefused(token({ header: { alg, kid: undefined }, key: stranger }), 'bad_signature');
  });
}

for (const [what, changes] of [
  ['typ JOSE', { header: { typ: 'JOSE' } }],
  ['no typ', { header: { typ: undefined } }],
  ['an empty kid', { header: { kid: '' } }],
  ['an unknown header field', { header: { 'x-trace': '1' } }],
  ['a bare string as aud', { claims: { aud: 'billing' } }],
  ['several audiences', { claims: { aud: ['a', 'billing'] } }],
  ['nbf now', { claims: { nbf: seconds } }],
  ['a fraction in exp', { claims: { exp: seconds + 0.5 } }],
  ['iat in the future', { claims: { iat: seconds + 3600 } }],
  ['further claims', { claims: { iss: 'x', jti: '1', nested: { a: [1] } } }],
] as const) {
  test(`a token with ${what} is valid`, () => assertValid(token(changes)));
}

for (const [what, changes, reason] of [
  ['HS256', { header: { alg: 'HS256' } }, 'unsupported_algorithm'],
  ['alg none', { header: { alg: 'none' } }, 'unsupported_algorithm'],
  ['EdDSA', { header: { alg: 'EdDSA' } }, 'unsupported_algorithm'],
  ['ES256K', { header: { alg: 'ES256K' } }, 'unsupported_algorithm'],
  ['alg in lower case', { header: { alg: 'es256' } }, 'unsupported_algorithm'],
  ['no alg', { rawHeader: '{"kid":"k256"}' }, 'malformed'],
  ['typ in lower case', { header: { typ: 'jwt' } }, 'bad_type'],
  ['the typ of a WIT-SVID', { header: { typ: 'wit+jwt' } }, 'bad_type'],
  ['a typ that is no string', { header: { typ: 1 } }, 'bad_type'],
  ['typ null', { header: { typ: null } }, 'bad_type'],
  ['crit', { header: { crit: ['exp'], exp: 1 } }, 'malformed'],
  ['b64', { header: { b64: true } }, 'malformed'],
  ['a kid that is no string', { header: { kid: 1 } }, 'malformed'],
  ['a header that is a list', { rawHeader: '[]' }, 'malformed'],
  ['alg twice', { rawHeader: '{"alg":"ES256","kid":"k256","alg":"ES256"}' }, 'malformed'],
  ['a payload that is no JSON', { rawClaims: 'hello' }, 'malformed'],
  [
    'sub twice',
    { rawClaims: `{"sub":"spiffe://example.org/a",${JSON.stringify(claims).slice(1)}` },
    'malformed',
  ],
  ['no sub', { claims: { sub: undefined } }, 'missing_subject'],
  ['an empty sub', { claims: { sub: '' } }, 'missing_subject'],
  ['a sub that is no string', { claims: { sub: 1 } }, 'malformed'],
  ['a sub that is no SPIFFE ID', { claims: { sub: 'workload' } }, 'invalid_spiffe_id'],
  ['the trust domain as sub', { claims: { sub: 'spiffe://example.org' } }, 'invalid_spiffe_id'],
  ['a sub with a dot segment', { claims: { sub: 'spiffe://example.org/a/../b' } }, 'invalid_spiffe_id'],
  ['no aud', { claims: { aud: undefined } }, 'missing_audience'],
  ['an empty list as aud', { claims: { aud: [] } }, 'missing_audience'],
  ['an empty aud', { claims: { aud: '' } }, 'missing_audience'],
  ['an aud with a number', { claims: { aud: ['billing', 1] } }, 'malformed'],
  ['an aud that is an object', { claims: { aud: {} } }, 'malformed'],
  ['another aud', { claims: { aud: ['Billing'] } }, 'audience_mismatch'],
  ['no exp', { claims: { exp: undefined } }, 'missing_expiry'],
  ['an exp that is a string', { claims: { exp: String(seconds + 60) } }, 'malformed'],
  ['a negative exp', { claims: { exp: -1 } }, 'malformed'],
  ['an exp beyond all dates', { claims: { exp: 1e300 } }, 'malformed'],
  [
    'an exp of 64 bits',
    { rawClaims: JSON.stringify(claims).replace(/"exp":\d+/, '"exp":9223372036854775808') },
    'malformed',
  ],
  ['an exp of now', { claims: { exp: seconds } }, 'expired'],
  ['an exp before now', { claims: { exp: seconds - 1 } }, 'expired'],
  ['an nbf after now', { claims: { nbf: seconds + 1 } }, 'not_yet_valid'],
  ['an nbf that is no number', { claims: { nbf: 'now' } }, 'malformed'],
  ['a domain without a bundle', { claims: { sub: 'spiffe://elsewhere/a' } }, 'unknown_trust_domain'],
  ['a domain with an empty bundle', { claims: { sub: 'spiffe://empty.example/a' } }, 'unknown_key'],
  ['a kid that is unknown', { header: { kid: 'k1' } }, 'unknown_key'],
  ['the kid of a key that does not fit', { header: { kid: 'k384' } }, 'bad_signature'],
  ['the signature of another key', { key: other }, 'bad_signature'],
] as const satisfies readonly (readonly [string, Parameters<typeof token>[0], JwtReason])[]) {
  test(`a token with ${what} is refused as ${reason}`, () => assertRefused(token(changes), reason));
}

test('a token changed behind its signature is refused', async () => {
  const [head = '', , mac = ''] = token().split('.');
  await assertRefused(
    `${head}.${encode({ ...claims, sub: 'spiffe://example.org/admin' })}.${mac}`,
    'bad_signature',
  );
});

test('an HMAC with the public key as its secret is refused', async () => {
  const input = `${encode({ ...header, alg: 'HS256' })}.${encode(claims)}`;
  const secret = p256.publicKey.export({ type: 'spki', format: 'pem' });
  const mac = createHmac('sha256', secret).update(input).digest('base64url');
  await assertRefused(`${input}.${mac}`, 'unsupported_algorithm');
});

test('a key in the header is not used', async () => {
  const jwk = other.publicKey.export({ format: 'jwk' });
  await assertRefused(token({ header: { jwk }, key: other }), 'bad_signature');
});

test('the key of one trust domain does not sign for another', async () => {
  const set = jwtBundles({
    'example.org': [authority('k256', p256)],
    'partner.example': [authority('k256', other)],
  });
  await assertRefused(token({ claims: { sub: 'spiffe://partner.example/a' } }), 'bad_signature', set);
});

test('a key that names another alg is not used', async () => {
  const set = jwtBundles({ 'example.org': [authority('krsa', rsa2048, { alg: 'PS256' })] });
  const changes = { header: { alg: 'RS256', kid: 'krsa' }, key: rsa2048 };
  await assertRefused(token(changes), 'bad_signature', set);
  const result = await verifyJwtSvid(
    token({ ...changes, header: { alg: 'PS256', kid: 'krsa' } }),
    ['billing'],
    set,
    testNow,
  );
  assert.equal(result.valid, true);
});

test('an RSA key below 2048 bits is not used', async () => {
  const weak = rsa(1024);
  const set = jwtBundles({ 'example.org': [authority('weak', weak)] });
  await assertRefused(token({ header: { alg: 'RS256', kid: 'weak' }, key: weak }), 'bad_signature', set);
});

test('without kid 16 keys that fit are tried and no more', async () => {
  const strangers = Array.from({ length: 16 }, (_, index) => authority(`s${index}`, ec('P-256')));
  const text = token({ header: { kid: undefined } });
  const withStrangers = (count: number) =>
    jwtBundles({
      'example.org': [authority('r', rsa2048), ...strangers.slice(0, count), authority('k256', p256)],
    });
  assert.equal((await verifyJwtSvid(text, ['billing'], withStrangers(15), testNow)).valid, true);
  await assertRefused(text, 'bad_signature', withStrangers(16));
});

test('keys that do not fit are not among the 16', async () => {
  const weak = rsa(1024);
  const misfits = Array.from({ length: 16 }, (_, index) => [
    authority(`p384-${index}`, p384),
    authority(`weak-${index}`, weak),
  ]).flat();
  const set = jwtBundles({
    'example.org': [...misfits, authority('k256', p256), authority('krsa', rsa2048)],
  });
  for (const text of [
    token({ header: { kid: undefined } }),
    token({ header: { alg: 'RS256', kid: undefined }, key: rsa2048 }),
  ]) {
    assert.equal((await verifyJwtSvid(text, ['billing'], set, testNow)).valid, true);
  }
});

for (const [what, change] of [
  ['two parts', (text: string) => text.split('.').slice(0, 2).join('.')],
  ['four parts', (text: string) => `${text}.`],
  ['five parts, as encrypted ones have', (text: string) => `${text}.a.b`],
  ['an empty signature', (text: string) => text.replace(/[^.]*$/, '')],
  ['padding', (text: string) => `${text}=`],
  ['a line break in the signature', (text: string) => `${text.slice(0, -4)}\n${text.slice(-4)}`],
  ['a space in front', (text: string) => ` ${text}`],
  ['the other base64 alphabet', (text: string) => `${text.slice(0, -4)}+/+/`],
  ['stray bits at the end', (text: string) => text.replace(/.$/, (last) => (last === 'B' ? 'C' : 'B'))],
  ['more than 16 KiB', (text: string) => `${text}${'A'.repeat(16 * 1024)}`],
  ['a JSON serialization', (text: string) => JSON.stringify({ payload: text.split('.')[1] })],
] as const) {
  test(`a token with ${what} is malformed`, () => assertRefused(change(token()), 'malformed'));
}

test('a payload that is not UTF-8 is malformed', async () => {
  const bytes = Buffer.concat([
    Buffer.from(`${JSON.stringify(claims).slice(0, -1)},"x":"`),
    Buffer.of(0xff),
    Buffer.from('"}'),
  ]);
  const input = `${encode(header)}.${bytes.toString('base64url')}`;
  const mac = signature('ES256', p256.privateKey, input).toString('base64url');
  await assertRefused(`${input}.${mac}`, 'malformed');
});

test('no expected audience, or an empty one, is a config error and not a pass', async () => {
  for (const audiences of [[], [''], ['billing', '']]) {
    await assert.rejects(
      verifyJwtSvid(token(), audiences, bundles, testNow),
      (error) => error instanceof AppError && error.code === 'config',
    );
  }
});

test('claims can be written as JSON again, large integers too', async () => {
  const rawClaims = JSON.stringify(claims).replace('{', '{"id":9007199254740993,');
  const result = await verifyJwtSvid(token({ rawClaims }), ['billing'], bundles, testNow);
  assert.ok(result.valid);
  assert.ok(JSON.stringify(result));
});

test('an own token is read without its bundle', () => {
  const text = token({ claims: { iat: seconds - 5 } });
  const svid = decodeJwtSvid(text, 'internal', testNow);
  assert.equal(svid.token, text);
  assert.equal(svid.spiffeId, claims.sub);
  assert.deepEqual(svid.audiences, ['billing']);
  assert.equal(svid.expiresAt, (seconds + 60) * 1000);
  assert.equal(svid.issuedAt, (seconds - 5) * 1000);
  assert.equal(svid.hint, 'internal');
  assert.equal(decodeJwtSvid(token(), '', testNow + 7).issuedAt, testNow + 7);
});

test('an own token that is malformed throws and is not quoted', () => {
  const text = token({ claims: { sub: undefined } });
  assert.throws(
    () => decodeJwtSvid(text, '', testNow),
    (error) =>
      error instanceof MalformedError && !text.split('.').some((part) => String(error.stack).includes(part)),
  );
});

test('whatever the token, verification answers with a value and never lets one of others pass', async () => {
  const good = token();
  const parts = fc.constantFrom(...good.split('.'), encode('{}'), encode({ alg: 'none' }), '', 'a', '.');
  const changed = fc
    .tuple(fc.nat(good.length - 1), fc.string({ minLength: 1, maxLength: 1 }))
    .map(([at, character]) => good.slice(0, at) + character + good.slice(at + 1));
  const texts = fc.oneof(
    fc.string({ unit: 'binary' }),
    changed,
    fc.array(parts, { maxLength: 4 }).map((p) => p.join('.')),
  );
  await fc.assert(
    fc.asyncProperty(texts, async (text) => {
      const result = await verifyJwtSvid(text, ['billing'], bundles, testNow);
      assert.equal(result.valid, text === good);
    }),
    { numRuns: 500 },
  );
});
