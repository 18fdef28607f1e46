import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compileQueries, type QueryMap, type QuerySpec } from '../../../src/policy/query-map.ts';
import type { QueryRequest } from '../../../src/policy/request-match.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

const defaults = { defaultPath: 'envoy/authz/allow', defaultInput: 'envoy' } as const;

function compile(...specs: readonly QuerySpec[]): QueryMap {
  return compileQueries(specs, defaults);
}

function pathOf(map: QueryMap, request: QueryRequest): string {
  const selection = map.select(request);
  return selection.kind === 'query' ? selection.path : selection.reason;
}

function problemsOf(...specs: readonly QuerySpec[]): readonly string[] {
  try {
    compile(...specs);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path }) => path);
  }
  return [];
}

test('the first query that fits decides, else the default path', () => {
  const map = compile(
    { match: { path: '/a/*' }, path: 'one' },
    { match: { path: '/a/b' }, path: 'two' },
    { match: { method: ['POST'] }, path: 'three', input: 'agentvault', dryRun: true },
  );
  assert.equal(pathOf(map, { path: '/a/b' }), 'one');
  assert.equal(pathOf(map, { path: '/c', method: 'POST' }), 'three');
  assert.equal(pathOf(map, { path: '/c', method: 'post' }), 'envoy/authz/allow');
  const third = map.select({ method: 'POST' });
  assert.deepEqual(third.kind === 'query' && [third.index, third.input, third.dryRun], [
    2,
    'agentvault',
    true,
  ]);
  const none = map.select({});
  assert.deepEqual(none.kind === 'query' && [none.index, none.input, none.dryRun], [
    undefined,
    'envoy',
    false,
  ]);
  assert.deepEqual(map.paths, ['envoy/authz/allow', 'one', 'two', 'three']);
});

test('with an empty default path an unmatched request is denied no_query', () => {
  const map = compileQueries([{ match: { path: '/a' }, path: 'one' }], { ...defaults, defaultPath: '' });
  assert.equal(pathOf(map, { path: '/b' }), 'no_query');
  assert.equal(pathOf(map, { path: '/a?x=1' }), 'one');
});

test('a key that the request lacks does not match, so TCP requests fit only queries without HTTP keys', () => {
  const peerId = 'spiffe://td.example/agent/a';
  const keys: readonly QuerySpec['match'][] = [
    { path: '*' },
    { method: ['GET'] },
    { host: '*' },
    { context: { a: '' } },
  ];
  for (const match of keys)
    assert.equal(pathOf(compile({ match, path: 'one' }), { peerId }), 'envoy/authz/allow');
  assert.equal(pathOf(compile({ match: { peer: 'spiffe://td.example/*' }, path: 'one' }), { peerId }), 'one');
  assert.equal(
    pathOf(compile({ match: { peer: 'spiffe://td.example/*' }, path: 'one' }), {}),
    'envoy/authz/allow',
  );
});

test('all keys of a match must fit', () => {
  const map = compile({
    match: {
      peer: 'spiffe://td.example/agent/:id',
      method: ['GET', 'HEAD'],
      path: '/v1/:owner',
      host: 'api.*',
      context: { api: 'balances' },
    },
    path: 'one',
  });
  const fits: QueryRequest = {
    peerId: 'spiffe://td.example/agent/a',
    method: 'HEAD',
    path: '/v1/bob',
    host: 'API.example:8443',
    contextExtensions: { api: 'balances', more: 'x' },
  };
  assert.equal(pathOf(map, fits), 'one');
  const changes: readonly Partial<QueryRequest>[] = [
    { peerId: 'spiffe://other.example/agent/a' },
    { method: 'POST' },
    { path: '/v2/bob' },
    { host: 'web.example' },
    { contextExtensions: { api: 'other' } },
    { contextExtensions: {} },
  ];
  for (const change of changes) assert.equal(pathOf(map, { ...fits, ...change }), 'envoy/authz/allow');
});

test('a host is compared in lower case and without its port, IPv6 brackets kept', () => {
  const table = [
    ['api.example', 'API.EXAMPLE:443'],
    ['[::1]', '[::1]:8080'],
    ['[::1]', '[::1]'],
    ['10.0.0.1', '10.0.0.1:80'],
    ['api.example', 'api.example.'],
    ['api.example', 'api.example.:443'],
  ] as const;
  for (const [host, sent] of table)
    assert.equal(pathOf(compile({ match: { host }, path: 'one' }), { host: sent }), 'one');
});

test('context extensions are own keys only', () => {
  const map = compile({ match: { context: { constructor: 'x' } }, path: 'one' });
  assert.equal(pathOf(map, { contextExtensions: {} }), 'envoy/authz/allow');
});

test('an unsafe path is denied when any query has a path, even if another query would fit', () => {
  const map = compile({ match: { method: ['GET'] }, path: 'one' }, { match: { path: '/x' }, path: 'two' });
  const unsafe = [
    '/a/../b',
    '/..',
    '/.',
    '/a/./b',
    '/a//b',
    '//',
    '/a/%2e%2e/b',
    '/a%2Fb',
    '/a%5cb',
    '/a\\b',
    '/%2E',
    '/%61dmin',
    '/a%5A',
    '/%7a%39',
    '/a%2Db',
    '/a%5Fb',
    '/%7Ebob',
    '/a#/b',
    '/a%00/b',
    '/public/..;/admin',
    '/public/.;v=1/admin',
    '/public/..;',
  ];
  for (const path of unsafe) {
    const selection = map.select({ path: `${path}?q`, method: 'GET' });
    assert.ok(selection.kind === 'deny' && selection.reason === 'unsafe_path', path);
  }
  for (const path of [
    '/a/..b',
    '/a/...;x',
    '/a;x=../b',
    '/a.',
    '/...',
    '/a%20b%3A%40%5b%60%7b%7F%c3%a9%25',
    '/x?next=//evil/../#%61',
  ]) {
    assert.notEqual(pathOf(map, { path, method: 'GET' }), 'unsafe_path', path);
  }
});

test('without a path rule an unsafe path goes to policy', () => {
  assert.equal(
    pathOf(compile({ match: { method: ['GET'] }, path: 'one' }), { path: '/a/../b', method: 'GET' }),
    'one',
  );
});

test('set fills captures of peer and path into texts, deeply, and leaves the rest', () => {
  const map = compile({
    match: { peer: 'spiffe://td.example/agent/:id', path: '/v1/:owner' },
    path: 'one',
    set: {
      action: 'read',
      resource: { owner: 'spiffe://td.example/agent/{owner}', tags: ['{id}', 1, null, true, '{}'] },
      subject: { role: '{id}-role' },
    },
  });
  const selection = map.select({ peerId: 'spiffe://td.example/agent/a1', path: '/v1/bob' });
  assert.ok(selection.kind === 'query');
  assert.deepEqual(selection.set, {
    action: 'read',
    resource: { owner: 'spiffe://td.example/agent/bob', tags: ['a1', 1, null, true, '{}'] },
    subject: { role: 'a1-role' },
  });
  assert.deepEqual({ ...selection.captures }, { id: 'a1', owner: 'bob' });
});

test('a capture that is no SPIFFE path segment does not get into a SPIFFE ID', () => {
  const set = { owner: 'spiffe://td.example/agent/{owner}', plain: 'x{owner}' };
  const map = compile({ match: { path: '/v1/:owner' }, path: 'one', set });
  for (const owner of ['a b', 'a%20', 'a:b', 'ü', '*', '{owner}']) {
    assert.equal(pathOf(map, { path: `/v1/${owner}` }), 'malformed_request', owner);
  }
  const plain = compile({ match: { path: '/v1/:owner' }, path: 'one', set: { plain: 'x{owner}' } });
  assert.equal(pathOf(plain, { path: '/v1/a:b' }), 'one');
});

test('a capture cannot smuggle another template in', () => {
  const map = compile({ match: { path: '/:a/:b' }, path: 'one', set: { x: '{a}-{b}' } });
  const selection = map.select({ path: '/{b}/2' });
  assert.deepEqual(selection.kind === 'query' && selection.set, { x: '{b}-2' });
});

test('every problem of the configuration is reported with its key path', () => {
  const at = 'ext_authz.queries[0]';
  const table: readonly (readonly [QuerySpec, readonly string[]])[] = [
    [{ match: { peer: 'spiffe://*/x' }, path: 'a' }, [`${at}.match.peer`]],
    [{ match: { peer: 'https://td/x' }, path: 'a' }, [`${at}.match.peer`]],
    [{ match: { peer: 'spiffe://:td/x' }, path: 'a' }, [`${at}.match.peer`]],
    [{ match: { peer: 'spiffe://td/:id', path: '/:id' }, path: 'a' }, [`${at}.match.path`]],
    [{ match: { path: '/a/:id*' }, path: 'a' }, [`${at}.match.path`]],
    [{ match: { path: 'a' }, path: 'a' }, [`${at}.match.path`]],
    [{ match: { path: '/a?b' }, path: 'a' }, [`${at}.match.path`]],
    [{ match: { path: '/a//b' }, path: 'a' }, [`${at}.match.path`]],
    [{ match: { method: [] }, path: 'a' }, [`${at}.match.method`]],
    [{ match: { method: ['GET', 'get'] }, path: 'a' }, [`${at}.match.method[1]`]],
    [{ match: { host: 'API.example' }, path: 'a' }, [`${at}.match.host`]],
    [{ match: { host: 'api.example:443' }, path: 'a' }, [`${at}.match.host`]],
    [{ match: { host: 'api.example.' }, path: 'a' }, [`${at}.match.host`]],
    [{ path: '/' }, [`${at}.path`]],
    [{ path: 'a/../b' }, [`${at}.path`]],
    [{ path: 'data.envoy.authz.allow' }, [`${at}.path`]],
    [{ path: 'a', set: { spiffe: {} } }, [`${at}.set.spiffe`]],
    [{ path: 'a', set: { subject: { id: 'x' } } }, [`${at}.set.subject.id`]],
    [{ path: 'a', set: { subject: 'x' } }, [`${at}.set.subject`]],
    [{ path: 'a', set: { a: { b: ['{nope}'] } } }, [`${at}.set.a.b[0]`]],
    [{ match: { path: '/:td' }, path: 'a', set: { a: 'spiffe://{td}/x' } }, [`${at}.set.a`]],
    [{ match: { peer: 'x', host: 'A' }, path: '' }, [`${at}.match.peer`, `${at}.match.host`, `${at}.path`]],
  ];
  for (const [spec, paths] of table) assert.deepEqual(problemsOf(spec), paths, JSON.stringify(spec));
});

test('a query without a path of its own takes the default one, and lacks one when that is empty', () => {
  assert.equal(pathOf(compile({ match: { path: '/x' } }), { path: '/x' }), 'envoy/authz/allow');
  assert.throws(
    () => compileQueries([{ match: { path: '/x' } }], { ...defaults, defaultPath: '' }),
    ConfigError,
  );
});

test('no request makes select throw, and no captured text reaches a SPIFFE ID unchecked', () => {
  const map = compile({
    match: { path: '/v1/:owner' },
    path: 'one',
    set: { owner: 'spiffe://td.example/agent/{owner}' },
  });
  const text = fc.option(fc.string({ unit: 'binary', maxLength: 20 }), { nil: undefined });
  fc.assert(
    fc.property(text, text, text, text, (peerId, method, tail, host) => {
      const selection = map.select({ peerId, method, path: `/v1/${tail}`, host, contextExtensions: {} });
      if (selection.kind !== 'query' || selection.index === undefined) return;
      assert.match(
        JSON.stringify(selection.set['owner']),
        /^"spiffe:\/\/td\.example\/agent\/[A-Za-z0-9._-]+"$/,
      );
    }),
  );
});
