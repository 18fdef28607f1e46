import assert from 'node:assert/strict';
import { generateKeyPairSync, type JsonWebKey } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import {
  formatBundleDocument,
  formatJwks,
  parseBundleDocument,
  parseJwks,
} from '../../../src/spiffe/bundle-document.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority } from '../../support/ca.ts';

const trustDomain = parseTrustDomain('example.org');
const authority = await createTestAuthority(trustDomain);
const rsaAuthority = await createTestAuthority(trustDomain, { rsa: true });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const k1 = generateKeyPairSync('ec', { namedCurve: 'secp256k1' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ecJwk = ec.publicKey.export({ format: 'jwk' });
const rsaJwk = rsa.publicKey.export({ format: 'jwk' });
const x5c = (...ders: readonly Buffer[]): readonly string[] => ders.map((der) => der.toString('base64'));

const x509Key = { use: 'x509-svid', kty: 'EC', x5c: x5c(authority.certificate.der) };
const jwtKey = { use: 'jwt-svid', kid: 'k1', ...ecJwk };

const parse = (keys: readonly unknown[], members: object = {}) =>
  parseBundleDocument(JSON.stringify({ keys, ...members }), trustDomain);
const jwks = (...keys: readonly unknown[]) => parseJwks(JSON.stringify({ keys }), trustDomain);

test('a SPIFFE bundle gives the authorities of both kinds, the sequence and the hint', () => {
  const document = parse([x509Key, jwtKey], { spiffe_sequence: 7, spiffe_refresh_hint: 300 });
  assert.deepEqual(
    document.x509.authorities.map(({ fingerprint }) => fingerprint),
    [authority.certificate.fingerprint],
  );
  assert.deepEqual(
    document.jwt.authorities.map(({ keyId, jwk }) => [keyId, jwk]),
    [['k1', { ...ecJwk, kid: 'k1' }]],
  );
  assert.ok(document.jwt.authorities[0]?.publicKey.equals(ec.publicKey));
  assert.equal(document.x509.trustDomain, trustDomain);
  assert.equal(document.sequence, 7n);
  assert.equal(document.refreshHintS, 300);
});

test('sequence and hint may be missing, and keys may be empty', () => {
  const document = parse([]);
  assert.deepEqual(document.x509.authorities, []);
  assert.deepEqual(document.jwt.authorities, []);
  assert.equal(document.sequence, undefined);
  assert.equal(document.refreshHintS, undefined);
});

for (const [what, key] of [
  ['an unknown type', { ...jwtKey, kty: 'AKP' }],
  ['no type', { ...jwtKey, kty: undefined }],
  ['a symmetric key', { use: 'jwt-svid', kid: 'k', kty: 'oct', k: 'AAAA' }],
  ['a curve that no algorithm uses', { ...jwtKey, ...k1.publicKey.export({ format: 'jwk' }) }],
  ['an empty kid', { ...jwtKey, kid: '' }],
  ['a point that is not on its curve', { ...jwtKey, y: ecJwk.x }],
  ['a broken modulus', { use: 'jwt-svid', kid: 'k', ...rsaJwk, n: '***' }],
  ['no use', { ...jwtKey, use: undefined }],
  ['an unknown use', { ...jwtKey, use: 'sig' }],
  ['the use of WIT-SVIDs', { ...jwtKey, use: 'wit-svid' }],
  ['no kid', { ...jwtKey, kid: undefined }],
  ['a kid that is no string', { ...jwtKey, kid: 7 }],
  ['no certificate', { ...x509Key, x5c: undefined }],
  ['an empty list of certificates', { ...x509Key, x5c: [] }],
  ['a certificate that is no base64', { ...x509Key, x5c: ['***'] }],
  ['a certificate in base64url without padding', { ...x509Key, x5c: ['AAA'] }],
  ['a broken certificate', { ...x509Key, x5c: ['MAA='] }],
  ['a certificate of an unknown type', { ...x509Key, kty: 'AKP' }],
  ['a number in its place', 7],
  ['null in its place', null],
] as const) {
  test(`a key with ${what} is dropped, the others stay`, () => {
    const document = parse([key, x509Key, jwtKey]);
    assert.equal(document.x509.authorities.length, 1);
    assert.equal(document.jwt.authorities.length, 1);
    const alone = parse([key]);
    assert.equal(alone.x509.authorities.length + alone.jwt.authorities.length, 0);
  });
}

test('of several certificates in one key the first counts', () => {
  const both = x5c(rsaAuthority.certificate.der, authority.certificate.der);
  assert.deepEqual(
    parse([{ ...x509Key, x5c: both }]).x509.authorities.map(({ fingerprint }) => fingerprint),
    [rsaAuthority.certificate.fingerprint],
  );
});

test('a sequence of 64 bits keeps every digit, and what is no such number is refused', () => {
  const withSequence = (text: string) =>
    parseBundleDocument(`{"keys":[],"spiffe_sequence":${text}}`, trustDomain);
  for (const digits of ['0', '9007199254740993', '18446744073709551615']) {
    assert.equal(withSequence(digits).sequence, BigInt(digits));
  }
  for (const wrong of [
    '18446744073709551616',
    '-1',
    '-9007199254740993',
    '1.5',
    '1e300',
    '"1"',
    'null',
    '[]',
  ]) {
    assert.throws(() => withSequence(wrong), MalformedError, wrong);
  }
});

test('a refresh hint is a whole number of seconds', () => {
  assert.equal(parse([], { spiffe_refresh_hint: 0 }).refreshHintS, 0);
  for (const wrong of [-1, 1.5, '300', null]) {
    assert.throws(() => parse([], { spiffe_refresh_hint: wrong }), MalformedError);
  }
});

for (const [what, text] of [
  ['no JSON', 'hello'],
  ['a list', '[]'],
  ['without keys', '{}'],
  ['with keys that are no list', '{"keys":{}}'],
  ['with keys null', '{"keys":null}'],
  ['with keys twice', '{"keys":[],"keys":[]}'],
  ['with a member of a key twice', '{"keys":[{"kty":"EC","kty":"RSA"}]}'],
] as const) {
  test(`a document ${what} is refused in both modes`, () => {
    assert.throws(() => parseBundleDocument(text, trustDomain), MalformedError);
    assert.throws(() => parseJwks(text, trustDomain), MalformedError);
  });
}

test('documents beyond 1 MiB or 1024 keys are a LimitError', () => {
  assert.equal(parse(Array.from({ length: 1024 }, () => 0)).jwt.authorities.length, 0);
  assert.throws(() => parse(Array.from({ length: 1025 }, () => 0)), LimitError);
  assert.throws(() => parseJwks(`{"keys":[]}${' '.repeat(1024 * 1024)}`, trustDomain), LimitError);
});

test('a JWKS of the Workload API needs neither use nor kid', () => {
  const { use: _, ...bare } = jwtKey;
  for (const key of [bare, jwtKey, { ...bare, use: 'sig' }, { ...bare, kid: undefined }]) {
    assert.equal(jwks(key).authorities.length, 1);
  }
  assert.equal(jwks({ ...bare, kid: undefined }).authorities[0]?.keyId, '');
});

test('a JWKS of the Workload API drops keys for other uses and of unknown types one by one', () => {
  const { use: _, ...bare } = jwtKey;
  for (const use of ['x509-svid', 'wit-svid', 'enc', '', 7, null])
    assert.deepEqual(jwks({ ...bare, use }).authorities, []);
  const kept = jwks({ kty: 'AKP', kid: 'new' }, bare, { ...rsaJwk, kid: 'r' }, { kty: 'oct', k: 'AAAA' });
  assert.deepEqual(
    kept.authorities.map(({ keyId }) => keyId),
    ['k1', 'r'],
  );
});

test('private members of a key are left behind', () => {
  const secret: JsonWebKey = ec.privateKey.export({ format: 'jwk' });
  const bundle = jwks({ ...secret, kid: 'k1' });
  assert.equal(bundle.authorities[0]?.publicKey.type, 'public');
  assert.ok(!JSON.stringify([bundle, formatJwks(bundle)]).includes(secret.d ?? '?'));
});

test('a document goes out and comes back the same, a sequence of 64 bits too', () => {
  const before = parse(
    [x509Key, { ...x509Key, kty: 'RSA', x5c: x5c(rsaAuthority.certificate.der) }, jwtKey],
    {
      spiffe_refresh_hint: 60,
    },
  );
  const text = formatBundleDocument({ ...before, sequence: 2n ** 64n - 1n });
  const after = parseBundleDocument(text, trustDomain);
  assert.deepEqual(
    after.x509.authorities.map(({ der }) => der),
    before.x509.authorities.map(({ der }) => der),
  );
  assert.deepEqual(
    after.jwt.authorities.map(({ jwk }) => jwk),
    before.jwt.authorities.map(({ jwk }) => jwk),
  );
  assert.equal(after.sequence, 2n ** 64n - 1n);
  assert.equal(after.refreshHintS, 60);
});

test('a written document has uses, x509 keys without kid, and JWT keys with one only', () => {
  const { jwt, ...rest } = parse([x509Key, jwtKey]);
  const withoutId = jwks({ ...rsaJwk });
  const authorities = [...jwt.authorities, ...withoutId.authorities];
  const text = formatBundleDocument({ ...rest, jwt: { trustDomain, authorities } });
  assert.deepEqual(JSON.parse(text), {
    keys: [
      { use: 'x509-svid', ...authority.certificate.publicKey.export({ format: 'jwk' }), x5c: x509Key.x5c },
      jwtKey,
    ],
  });
});

test('a JWKS goes out without use and comes back the same', () => {
  const bundle = jwks({ ...ecJwk, kid: 'k1', alg: 'ES256' }, { ...rsaJwk });
  assert.deepEqual(JSON.parse(formatJwks(bundle)), { keys: [{ ...ecJwk, kid: 'k1', alg: 'ES256' }, rsaJwk] });
  assert.deepEqual(parseJwks(formatJwks(bundle), trustDomain), bundle);
});

test('whatever the text, both parsers answer with a bundle or throw an AppError', () => {
  const members = fc.constantFrom<[string, unknown]>(
    ...Object.entries({ ...x509Key, ...jwtKey }),
    ['x5c', ['MAA=']],
    ['kty', 'RSA'],
    ['n', rsaJwk.n],
    ['e', 'AQAB'],
    ['n', ''],
    ['use', 'x509-svid'],
  );
  const keys = fc.array(
    fc.oneof(
      fc.jsonValue(),
      fc.array(members).map((m) => Object.fromEntries(m)),
    ),
  );
  const documents = fc.record(
    { keys, spiffe_sequence: fc.jsonValue(), spiffe_refresh_hint: fc.jsonValue() },
    { requiredKeys: ['keys'] },
  );
  const texts = fc.oneof(
    fc.string(),
    documents.map((document) => JSON.stringify(document)),
  );
  fc.assert(
    fc.property(texts, (text) => {
      for (const parser of [parseBundleDocument, parseJwks]) {
        try {
          assert.ok(parser(text, trustDomain));
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      }
    }),
    { numRuns: 500 },
  );
});
