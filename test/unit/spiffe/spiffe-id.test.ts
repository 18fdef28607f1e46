import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import {
  idOfTrustDomain,
  isPathSegment,
  parseSpiffeId,
  parseTrustDomain,
  pathOf,
  trustDomainOf,
} from '../../../src/spiffe/spiffe-id.ts';

const lower = 'abcdefghijklmnopqrstuvwxyz0123456789._-';
const letters = `${lower}ABCDEFGHIJKLMNOPQRSTUVWXYZ`;
const text = (characters: string, maxLength: number) =>
  fc.string({ unit: fc.constantFrom(...characters.split('')), minLength: 1, maxLength });
const trustDomains = text(lower, 255);
const segments = text(letters, 20).filter((segment) => segment !== '.' && segment !== '..');
const ids = fc
  .tuple(trustDomains, fc.array(segments, { maxLength: 6 }))
  .map(([domain, path]) => ['spiffe:/', domain, ...path].join('/'));

for (const id of [
  'spiffe://trustdomain',
  'spiffe://trustdomain/path',
  'spiffe://trustdomain/path1/path2',
  'spiffe://trustdomain/path.with..dots/...',
  'spiffe://trustdomain/.../x',
  'spiffe://trustdomain/Path/UPPER',
  'spiffe://127.0.0.1/x',
  'spiffe://-_.a/x',
  `spiffe://${lower}/${letters}`,
  `spiffe://td/${'a'.repeat(2048 - 'spiffe://td/'.length)}`,
  `spiffe://${'a'.repeat(255)}/x`,
]) {
  test(`parses ${id.slice(0, 60)} as it is`, () => assert.equal(parseSpiffeId(id), id));
}

for (const [id, message] of [
  ['', /is empty/],
  ['trustdomain/path', /does not start with spiffe/],
  ['http://trustdomain/path', /does not start with spiffe/],
  ['SPIFFE://trustdomain/path', /does not start with spiffe/],
  ['Spiffe://trustdomain/path', /does not start with spiffe/],
  ['spiffe:/trustdomain/path', /does not start with spiffe/],
  ['spiffe:trustdomain/path', /does not start with spiffe/],
  [' spiffe://trustdomain/path', /does not start with spiffe/],
  ['spiffe://', /trust domain is missing/],
  ['spiffe:///path', /trust domain is missing/],
  ['spiffe://TrustDomain/path', /upper case/],
  ['spiffe://trust domain/path', /characters/],
  ['spiffe://trustdomain:80/path', /characters/],
  ['spiffe://user@trustdomain/path', /characters/],
  ['spiffe://user:password@trustdomain/path', /characters/],
  ['spiffe://trust%64omain/path', /characters/],
  ['spiffe://[::1]/path', /characters/],
  ['spiffe://tr\u00fcst/path', /characters/],
  ['spiffe://trustdomain?query', /characters/],
  ['spiffe://trustdomain#fragment', /characters/],
  ['spiffe://trustdomain\n/path', /characters/],
  ['spiffe://trustdomain/', /trailing slash/],
  ['spiffe://trustdomain/path/', /trailing slash/],
  ['spiffe://trustdomain//', /empty segment/],
  ['spiffe://trustdomain//path', /empty segment/],
  ['spiffe://trustdomain/path//path', /empty segment/],
  ['spiffe://trustdomain/.', /dot segment/],
  ['spiffe://trustdomain/./path', /dot segment/],
  ['spiffe://trustdomain/path/..', /dot segment/],
  ['spiffe://trustdomain/path/../other', /dot segment/],
  ['spiffe://trustdomain/path?query', /characters/],
  ['spiffe://trustdomain/path#fragment', /characters/],
  ['spiffe://trustdomain/path#', /characters/],
  ['spiffe://trustdomain/path%20', /characters/],
  ['spiffe://trustdomain/%2e%2e', /characters/],
  ['spiffe://trustdomain/path\\path', /characters/],
  ['spiffe://trustdomain/path\n', /characters/],
  ['spiffe://trustdomain/path\0', /characters/],
  ['spiffe://trustdomain/p\u00e4th', /characters/],
  ['spiffe://trustdomain/\u{1f600}', /characters/],
  [`spiffe://${'a'.repeat(256)}/x`, /longer than 255/],
  [`spiffe://td/${'a'.repeat(2048)}`, /longer than 2048/],
] as const) {
  test(`refuses ${JSON.stringify(id.slice(0, 60))}`, () =>
    assert.throws(
      () => parseSpiffeId(id),
      (error) => error instanceof MalformedError && message.test(error.message),
    ));
}

test('every character outside the allowed ones is refused in trust domain and path', () => {
  for (let code = 0; code < 256; code += 1) {
    const character = String.fromCharCode(code);
    const inDomain = (): unknown => parseTrustDomain(`a${character}b`);
    const inPath = (): unknown => parseSpiffeId(`spiffe://td/a${character}b`);
    if (lower.includes(character)) assert.ok(inDomain());
    else assert.throws(inDomain, MalformedError);
    if (letters.includes(character) || character === '/') assert.ok(inPath());
    else assert.throws(inPath, MalformedError);
  }
});

test('a trust domain is read with and without its scheme, and never with a path', () => {
  assert.equal(parseTrustDomain('example.org'), 'example.org');
  assert.equal(parseTrustDomain('spiffe://example.org'), 'example.org');
  assert.throws(() => parseTrustDomain('spiffe://example.org/path'), MalformedError);
  assert.throws(() => parseTrustDomain('spiffe://example.org/'), MalformedError);
  assert.throws(() => parseTrustDomain('spiffe://spiffe://example.org'), MalformedError);
});

test('a valid ID falls into its trust domain and its path and is made of them again', () => {
  fc.assert(
    fc.property(ids, (id) => {
      const parsed = parseSpiffeId(id);
      const trustDomain = trustDomainOf(parsed);
      assert.equal(parseTrustDomain(trustDomain), trustDomain);
      assert.equal(idOfTrustDomain(trustDomain) + pathOf(parsed), id);
      for (const segment of pathOf(parsed).split('/').slice(1)) assert.ok(isPathSegment(segment));
    }),
  );
});

test('whatever the text, the parser answers with the same text or a MalformedError', () => {
  const nearly = fc
    .tuple(ids, fc.nat(80), fc.string({ unit: 'binary', maxLength: 3 }))
    .map(([id, at, insert]) => id.slice(0, at) + insert + id.slice(at));
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), nearly), (input) => {
      try {
        assert.equal(parseSpiffeId(input), input);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});

test('a path segment is neither empty nor a dot segment nor has a slash', () => {
  assert.ok(isPathSegment('a.b-c_D9'));
  for (const wrong of ['', '.', '..', 'a/b', 'a b', '%2e', 'a\n']) assert.equal(isPathSegment(wrong), false);
});
