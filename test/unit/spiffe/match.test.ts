import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { matchesId, parseIdPattern } from '../../../src/spiffe/match.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';

const matches = (pattern: string, id: string): boolean =>
  matchesId(parseIdPattern(pattern), parseSpiffeId(id));

for (const [pattern, id, expected] of [
  ['spiffe://td/a', 'spiffe://td/a', true],
  ['spiffe://td/a', 'spiffe://td/A', false],
  ['spiffe://td/a', 'spiffe://td/a/b', false],
  ['spiffe://td/a', 'spiffe://td/ab', false],
  ['spiffe://td/a', 'spiffe://td', false],
  ['spiffe://td/a', 'spiffe://td2/a', false],
  ['spiffe://td/*', 'spiffe://td/a', true],
  ['spiffe://td/*', 'spiffe://td/a/b/c', true],
  ['spiffe://td/*', 'spiffe://td', false],
  ['spiffe://td/*', 'spiffe://td.evil/a', false],
  ['spiffe://td/*', 'spiffe://evil.td/a', false],
  ['spiffe://t.d/*', 'spiffe://txd/a', false],
  ['spiffe://td/agents/*', 'spiffe://td/agents/a', true],
  ['spiffe://td/agents/*', 'spiffe://td/agents', false],
  ['spiffe://td/agents/*', 'spiffe://td/other/agents/a', false],
  ['spiffe://td/agents*', 'spiffe://td/agents', true],
  ['spiffe://td/*/web', 'spiffe://td/a/b/web', true],
  ['spiffe://td/*/web', 'spiffe://td/a/webs', false],
  ['spiffe://td/ns/*/sa/*', 'spiffe://td/ns/a/sa/b', true],
  ['spiffe://td/ns/*/sa/*', 'spiffe://td/ns/a/b/sa/c/sa/d', true],
  ['spiffe://td/ns/*/sa/*', 'spiffe://td/ns/a/xsa/b', false],
  ['spiffe://td/a*a', 'spiffe://td/a', false],
  ['spiffe://td/a*a', 'spiffe://td/aa', true],
  ['spiffe://td/a**b', 'spiffe://td/ab', true],
  ['spiffe://td/*ab*ab', 'spiffe://td/ab', false],
  ['spiffe://td/*ab*ab', 'spiffe://td/xabab', true],
  ['spiffe://td/*aab*ab', 'spiffe://td/aaab', false],
  ['spiffe://td/x.y', 'spiffe://td/xzy', false],
] as const) {
  test(`${pattern} ${expected ? 'matches' : 'does not match'} ${id}`, () =>
    assert.equal(matches(pattern, id), expected));
}

for (const pattern of [
  '',
  '*',
  'td/a',
  'spiffe://*',
  'spiffe://*/a',
  'spiffe://*.td/a',
  'spiffe://td',
  'spiffe://td/',
  'spiffe://td//a',
  'spiffe://td/a/',
  'spiffe://td/../a',
  'spiffe://td/./*',
  'spiffe://td/a b',
  'spiffe://td/a%2f',
  'spiffe://td/a?',
  'spiffe://td/[a-z]',
  'spiffe://TD/a',
  'spiffe://td/a\n',
  `spiffe://td/${'a'.repeat(2048)}`,
]) {
  test(`${JSON.stringify(pattern.slice(0, 40))} is no pattern`, () =>
    assert.throws(() => parseIdPattern(pattern), MalformedError));
}

const characters = fc.constantFrom('a', 'b', '*', '/');
const paths = fc.string({ unit: characters, minLength: 1, maxLength: 12 });

test('patterns match what the same regular expression matches', () => {
  const idPaths = fc.string({ unit: fc.constantFrom('a', 'b', '/'), minLength: 1, maxLength: 14 });
  const valid = (path: string): boolean => path.split('/').every((segment) => segment !== '');
  fc.assert(
    fc.property(paths.filter(valid), idPaths.filter(valid), (pattern, path) => {
      const expected = new RegExp(`^${pattern.replaceAll('*', '.*')}$`).test(path);
      assert.equal(matches(`spiffe://td/${pattern}`, `spiffe://td/${path}`), expected);
    }),
    { numRuns: 2000 },
  );
});

test('whatever the text, it is a pattern of that text or an AppError', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        paths.map((path) => `spiffe://td/${path}`),
      ),
      (text) => {
        try {
          assert.equal(parseIdPattern(text).text, text);
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      },
    ),
  );
});

test('a pattern full of stars takes no longer than its length allows', () => {
  const pattern = parseIdPattern(`spiffe://td/${'*a'.repeat(900)}b`);
  const id = parseSpiffeId(`spiffe://td/${'a'.repeat(2000)}`);
  const start = performance.now();
  for (let i = 0; i < 100; i += 1) assert.equal(matchesId(pattern, id), false);
  assert.ok(performance.now() - start < 1000);
});
