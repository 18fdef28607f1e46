import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nameKinds, parseResourceName } from '../../../src/sds/names.ts';
import { aliases } from './literal-catalog.ts';

const cases: readonly (readonly [string, object])[] = [
  ['default', { kind: 'default_svid' }],
  ['ROOTCA', { kind: 'default_bundle' }],
  ['ALL', { kind: 'all_bundles' }],
  ['spiffe://example.org/web', { kind: 'spiffe_id', spiffeId: 'spiffe://example.org/web' }],
  ['spiffe://example.org', { kind: 'trust_domain', trustDomain: 'example.org' }],
  ['spiffe://example.org/', { kind: 'unknown' }],
  ['spiffe://example.org/a/../b', { kind: 'unknown' }],
  ['spiffe://Example.org', { kind: 'unknown' }],
  ['hint:internal', { kind: 'hint', hint: 'internal' }],
  ['hint:spiffe://example.org/web', { kind: 'hint', hint: 'spiffe://example.org/web' }],
  ['hint:', { kind: 'unknown' }],
  ['Hint:internal', { kind: 'unknown' }],
  ['Default', { kind: 'unknown' }],
  ['rootca', { kind: 'unknown' }],
  ['*', { kind: 'unknown' }],
  ['', { kind: 'unknown' }],
  ['jwt:billing', { kind: 'jwt_svid', audience: 'billing' }],
  ['jwt:other', { kind: 'unknown' }],
  ['jwt:', { kind: 'unknown' }],
  ['file-cert:/etc/tls.crt~/etc/tls.key', { kind: 'unknown' }],
];

for (const [name, expected] of cases) {
  test(`"${name}" is understood as ${JSON.stringify(expected)}`, () => {
    assert.deepEqual(parseResourceName(name, aliases), expected);
  });
}

test('an alias may look like a SPIFFE ID and then wins', () => {
  const own = { ...aliases, defaultSvidName: 'spiffe://example.org/web' };
  assert.equal(parseResourceName('spiffe://example.org/web', own).kind, 'default_svid');
  assert.equal(parseResourceName('default', own).kind, 'unknown');
});

test('of two equal aliases for bundles the own bundle wins, as in SPIRE', () => {
  const same = { ...aliases, defaultAllBundlesName: 'ROOTCA' };
  assert.equal(parseResourceName('ROOTCA', same).kind, 'default_bundle');
});

test('any text is understood as one of the kinds', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.webUrl(),
        fc.string().map((s) => `spiffe://${s}`),
      ),
      (name) => {
        assert.ok(nameKinds.includes(parseResourceName(name, aliases).kind));
      },
    ),
  );
});
