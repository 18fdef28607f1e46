import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileRequestRules } from '../../../src/policy/request-rules.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

const rule = (name: string, match: object) => ({ name, match });
const names = (fitting: readonly { name: string }[] | 'unsafe_path') =>
  fitting === 'unsafe_path' ? fitting : fitting.map(({ name }) => name);

describe('rules for requests', () => {
  it('are those that fit, in their order', () => {
    const rules = compileRequestRules(
      [rule('any', {}), rule('api', { path: '/api/*' }), rule('post', { method: ['POST'] })],
      'ext_authz.inject_jwt_svid',
    );
    assert.deepEqual(names(rules.fitting({ method: 'POST', path: '/api/x?y=1' })), ['any', 'api', 'post']);
    assert.deepEqual(names(rules.fitting({ method: 'GET', path: '/other' })), ['any']);
    assert.deepEqual(names(rules.fitting({})), ['any']);
  });

  it('cannot be told for an unsafe path when one of them looks at the path', () => {
    const rules = compileRequestRules([rule('any', {}), rule('api', { path: '/api/*' })], 'at');
    for (const path of ['/a/../api/x', '/%2e%2e/api', '//api', '/api%2fx', '/a\\b']) {
      assert.equal(rules.fitting({ path }), 'unsafe_path', path);
    }
    const pathless = compileRequestRules([rule('any', {})], 'at');
    assert.deepEqual(names(pathless.fitting({ path: '/a/../api/x' })), ['any']);
  });

  it('tell every problem with its key path', () => {
    assert.throws(
      () =>
        compileRequestRules(
          [rule('a', { path: 'x' }), rule('b', { peer: 'spiffe://*/x' })],
          'ext_authz.bridge',
        ),
      (error: unknown) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(
          error.problems.map(({ path }) => path),
          ['ext_authz.bridge[0].match.path', 'ext_authz.bridge[1].match.peer'],
        );
        return true;
      },
    );
  });
});
