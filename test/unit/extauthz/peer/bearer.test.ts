import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { findToken } from '../../../../src/extauthz/peer/bearer.ts';

const found = (token: string, scheme = 'Bearer') => ({ token, scheme });

describe('the token in a header', () => {
  const cases: readonly (readonly [header: string, value: string, expected: object | undefined])[] = [
    ['authorization', 'Bearer abc', found('abc')],
    ['authorization', 'bearer  abc ', found('abc')],
    ['authorization', 'Bearer a,Bearer b', found('a,Bearer b')],
    ['authorization', 'Basic YTpi', undefined],
    ['authorization', 'Bearer', undefined],
    ['authorization', 'abc', undefined],
    ['authorization', '', undefined],
    ['x-jwt', 'abc', found('abc', '')],
    ['x-jwt', 'Bearer abc', found('abc')],
    ['x-jwt', '', undefined],
  ];
  for (const [header, value, expected] of cases) {
    it(`of ${header}: ${value} is ${JSON.stringify(expected)}`, () => {
      assert.deepEqual(findToken({ [header]: value }, header), expected);
    });
  }

  it('is none without the header', () => {
    assert.equal(findToken({}, 'authorization'), undefined);
  });
});
