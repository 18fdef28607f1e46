import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compilePattern, matchPattern } from '../../../src/policy/query-pattern.ts';

function match(pattern: string, text: string): Readonly<Record<string, string>> | undefined {
  const compiled = compilePattern(pattern, true);
  assert.ok(typeof compiled !== 'string', pattern);
  return matchPattern(compiled, text);
}

test('patterns are anchored and match by the table', () => {
  const table: readonly (readonly [string, string, Readonly<Record<string, string>> | undefined])[] = [
    ['/v1/balances', '/v1/balances', {}],
    ['/v1/balances', '/v1/balances/', undefined],
    ['/v1/balances', 'x/v1/balances', undefined],
    ['/v1/:owner', '/v1/alice', { owner: 'alice' }],
    ['/v1/:owner', '/v1/', undefined],
    ['/v1/:owner', '/v1/a/b', undefined],
    ['/v1/:owner/x', '/v1/a/x', { owner: 'a' }],
    ['/:a/:b', '/1/2', { a: '1', b: '2' }],
    ['*', '', {}],
    ['*', '/any/thing', {}],
    ['/a*', '/a', {}],
    ['/a*c', '/abcbc', {}],
    ['/a*c', '/abcb', undefined],
    ['/a/*/z', '/a/b/c/z', {}],
    ['/a/*/z', '/a/z', undefined],
    ['*/:id/end', '/x/y/7/end', { id: '7' }],
    ['/a/*/:id', '/a/b/c/d', { id: 'd' }],
    ['spiffe://td.example/agent/:id', 'spiffe://td.example/agent/a1', { id: 'a1' }],
    ['spiffe://td.example/agent/:id', 'spiffe://td.examplex/agent/a1', undefined],
    ['/v1/:owner', '/v1/%61', { owner: '%61' }],
  ];
  for (const [pattern, text, expected] of table) {
    const captures = match(pattern, text);
    assert.deepEqual(captures === undefined ? undefined : { ...captures }, expected, `${pattern} on ${text}`);
  }
});

test('a pattern that could mean two things is refused', () => {
  for (const pattern of ['/a/:', '/a/:id*', '/a/:id.json', '/:a/:a', '/a/:1']) {
    assert.equal(typeof compilePattern(pattern, true), 'string', pattern);
  }
});

test('a colon inside a segment, or where segments are off, is an ordinary character', () => {
  assert.deepEqual({ ...match('/a:b', '/a:b') }, {});
  const compiled = compilePattern('/:a', false);
  assert.ok(typeof compiled !== 'string');
  assert.ok(matchPattern(compiled, '/:a') !== undefined);
  assert.ok(matchPattern(compiled, '/x') === undefined);
});

test('it agrees with a regular expression on any pattern and text', () => {
  const piece = fc.constantFrom('a', 'b', '/', '*', '/:x', '/:y');
  const text = fc
    .array(fc.constantFrom('a', 'b', '/', '%', ':'), { maxLength: 12 })
    .map((parts) => parts.join(''));
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 7 }).map((parts) => parts.join('')),
      text,
      (pattern, subject) => {
        const compiled = compilePattern(pattern, true);
        if (typeof compiled === 'string') return;
        const source = pattern
          .replace(/\*+/g, '[^]*?')
          .replace(/\/:([a-z]+)(?=\/|$|\[)/g, '/(?<$1>[^/]+(?=/|$))');
        const expected = new RegExp(`^${source}$`).exec(subject);
        const actual = matchPattern(compiled, subject);
        assert.equal(actual !== undefined, expected !== null);
        if (actual !== undefined) assert.deepEqual({ ...actual }, { ...expected?.groups });
      },
    ),
    { numRuns: 2000 },
  );
});

test('a hostile text costs pattern length times text length, not more', () => {
  const compiled = compilePattern('*a*a*a*a*a*a*a*a*a*a*b', false);
  assert.ok(typeof compiled !== 'string');
  const text = 'a'.repeat(20_000);
  const before = performance.now();
  assert.equal(matchPattern(compiled, text), undefined);
  assert.ok(performance.now() - before < 2_000);
});
