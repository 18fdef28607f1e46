import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkOverlap, parseRoot, rootsContain } from '../../../../src/policy/bundle/roots.ts';
import { MalformedError } from '../../../../src/runtime/errors.ts';

const bundle = (name: string, ...roots: string[]) => ({ name, roots: roots.map(parseRoot) });

test('roots overlap when one is the other or lies in it, by segments', () => {
  const apart = [bundle('a', 'x/y', 'z'), bundle('b', 'x/yy', 'x/z'), bundle('c', 'zz')];
  checkOverlap(apart);
  const table = [
    ['x/y', /root "\/x\/y" of bundle d and root "\/x\/y" of bundle a overlap/],
    ['/x/y/', /root "\/x\/y" of bundle d and root "\/x\/y" of bundle a overlap/],
    ['x', /root "\/x\/y" of bundle a and root "\/x" of bundle d overlap/],
    ['zz/1', /root "\/zz\/1" of bundle d and root "\/zz" of bundle c overlap/],
    [
      '',
      /of bundle [abc] and root "\/" of bundle d overlap: a bundle without roots in its \.manifest owns everything/,
    ],
  ] as const;
  for (const [root, message] of table) {
    assert.throws(() => checkOverlap([...apart, bundle('d', root)]), message, root);
  }
  assert.throws(
    () => checkOverlap([bundle('a', 'x', 'x/y')]),
    /roots "\/x\/y" and "\/x" of bundle a overlap/,
  );
});

test('a path is inside a root or not, whatever is compared first', () => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'aa', ''), { maxLength: 3 })
    .map((segments) => segments.join('/'));
  fc.assert(
    fc.property(path, path, (one, other) => {
      const [a, b] = [parseRoot(one), parseRoot(other)];
      const overlap = rootsContain([a], b) || rootsContain([b], a);
      const check = () =>
        checkOverlap([
          { name: 'a', roots: [a] },
          { name: 'b', roots: [b] },
        ]);
      if (overlap) assert.throws(check, MalformedError);
      else check();
    }),
  );
});

test('roots of a thousand segments are compared at once', () => {
  const deep = Array.from({ length: 5_000 }, (_, index) => `${index}/${'a/'.repeat(1_000)}`);
  const started = performance.now();
  checkOverlap([bundle('a', ...deep), bundle('b', `x/${'a/'.repeat(200_000)}`)]);
  assert.throws(() => checkOverlap([bundle('a', ...deep), bundle('b', '7/a')]), /of bundle b overlap/);
  // The work was once that of the square of the length: minutes.
  assert.ok(performance.now() - started < 20_000);
});
