import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AllowDecision, type DenyDecision, parseDecision } from '../../../src/policy/decision.ts';

function allowed(value: unknown): AllowDecision {
  const decision = parseDecision(value);
  assert.ok(decision.kind === 'allow', JSON.stringify(decision));
  return decision;
}

function denied(value: unknown): DenyDecision {
  const decision = parseDecision(value);
  assert.ok(decision.kind === 'deny', JSON.stringify(decision));
  return decision;
}

test('true allows and false denies, with nothing else set', () => {
  const allow = allowed(true);
  assert.deepEqual([allow.headers, allow.responseHeaders, allow.reason], [[], [], undefined]);
  const deny = denied(false);
  assert.deepEqual([deny.code, deny.reason, deny.httpStatus], ['policy_denied', 'policy_denied', 403]);
});

test('undefined is a deny with a code of its own', () => {
  assert.equal(denied(undefined).code, 'undefined_decision');
});

test('what is neither a boolean nor an object with a boolean is malformed and denies', () => {
  const values = [
    null,
    1,
    0,
    '',
    'true',
    [],
    [true],
    {},
    { allowed: 'true' },
    { allowed: 1 },
    { allowed: null },
  ];
  for (const value of [...values, { allow: 'yes' }, { allowed: true, allow: 'no' }, { reason: 'x' }]) {
    assert.equal(denied(value).code, 'malformed_decision', JSON.stringify(value));
  }
});

test('allowed and allow that disagree deny, in both directions, and agreeing ones count', () => {
  assert.equal(denied({ allowed: true, allow: false }).code, 'conflicting_decision');
  assert.equal(denied({ allowed: false, allow: true }).code, 'conflicting_decision');
  assert.equal(allowed({ allowed: true, allow: true }).kind, 'allow');
  assert.equal(denied({ allowed: false, allow: false }).code, 'policy_denied');
});

test('the reason is the text of the policy, else the code', () => {
  assert.equal(denied({ allow: false, reason: 'agent is suspended' }).reason, 'agent is suspended');
  assert.equal(denied({ allow: false, reason: { a: 1 } }).reason, 'policy_denied');
  assert.equal(denied({ allow: false, reason: '' }).reason, 'policy_denied');
  assert.equal(allowed({ allow: true, reason: 'owner' }).reason, 'owner');
});

test('an allow carries every key of its branch', () => {
  const decision = allowed({
    allowed: true,
    headers: { 'x-one': 'a', 'x-two': ['b', 'c'] },
    response_headers_to_add: [{ 'set-cookie': 'a=1' }, { 'set-cookie': 'b=2' }],
    request_headers_to_remove: ['x-secret'],
    query_parameters_to_remove: ['debug'],
    query_parameters_to_set: { tenant: ['t1', 't2'] },
    dynamic_metadata: { team: 'core' },
  });
  assert.deepEqual(decision.headers, [
    { name: 'x-one', value: 'a' },
    { name: 'x-two', value: 'b' },
    { name: 'x-two', value: 'c' },
  ]);
  assert.deepEqual(decision.responseHeaders, [
    { name: 'set-cookie', value: 'a=1' },
    { name: 'set-cookie', value: 'b=2' },
  ]);
  assert.deepEqual(decision.requestHeadersToRemove, ['x-secret']);
  assert.deepEqual(decision.queryParametersToRemove, ['debug']);
  assert.deepEqual(decision.queryParametersToSet, [
    { name: 'tenant', value: 't1' },
    { name: 'tenant', value: 't2' },
  ]);
  assert.deepEqual(decision.dynamicMetadata, { team: 'core' });
});

test('a deny carries headers, body, status and metadata', () => {
  const decision = denied({
    allowed: false,
    headers: { 'www-authenticate': 'Bearer' },
    body: 'no',
    http_status: 401,
    dynamic_metadata: { a: 1 },
  });
  assert.deepEqual(decision.headers, [{ name: 'www-authenticate', value: 'Bearer' }]);
  assert.deepEqual([decision.body, decision.httpStatus, decision.dynamicMetadata], ['no', 401, { a: 1 }]);
});

test('a header may say whether it appends, in every place of headers', () => {
  const headers = [
    { 'x-one': { value: 'a', append: true } },
    { 'X-Two': { value: ['b', 'c'], append: false } },
  ];
  const expected = [
    { name: 'x-one', value: 'a', append: true },
    { name: 'X-Two', value: 'b', append: false },
    { name: 'X-Two', value: 'c', append: false },
  ];
  const decision = allowed({ allowed: true, headers, response_headers_to_add: headers[1] });
  assert.deepEqual(decision.headers, expected);
  assert.deepEqual(decision.responseHeaders, expected.slice(1));
  assert.deepEqual(denied({ allowed: false, headers }).headers, expected);
});

test('keys of the other branch and unknown keys are not looked at', () => {
  assert.equal(allowed({ allowed: true, body: 1, http_status: 'x', other: [] }).kind, 'allow');
  const wrong = { response_headers_to_add: 1, request_headers_to_remove: 1, query_parameters_to_set: 1 };
  assert.equal(denied({ allowed: false, ...wrong }).code, 'policy_denied');
});

test('a key of the wrong type makes an allow a malformed deny that names the key', () => {
  const cases: readonly (readonly [string, unknown])[] = [
    ['headers', 'x'],
    ['headers', { a: 1 }],
    ['headers', { a: [1] }],
    ['headers', ['a']],
    ['headers', { '': 'a' }],
    ['headers', { a: 'b\r\nx-admin: 1' }],
    ['response_headers_to_add', { a: { b: 'c' } }],
    ['headers', { a: { value: 'b' } }],
    ['headers', { a: { value: 'b', append: 'true' } }],
    ['headers', { a: { value: 'b', append: null } }],
    ['headers', { a: { append: true } }],
    ['headers', { a: { value: [], append: false } }],
    ['headers', { ':path': { value: '/x', append: true } }],
    ['headers', { Host: { value: 'x', append: true } }],
    ['headers', { a: { value: [1], append: true } }],
    ['headers', { a: { value: { value: 'b', append: true }, append: true } }],
    ['headers', { a: { value: 'b\nx', append: true } }],
    ['headers', { a: { value: 'b', append: true, action: 'x' } }],
    ['headers', { a: [{ value: 'b', append: true }] }],
    ['headers', [{ a: 'b' }, { A: { value: 'c', append: true } }]],
    ['response_headers_to_add', { a: { value: 'b', append: false }, A: { value: 'c', append: true } }],
    ['query_parameters_to_set', { a: { value: 'b', append: true } }],
    ['request_headers_to_remove', 'x'],
    ['request_headers_to_remove', [1]],
    ['query_parameters_to_remove', {}],
    ['query_parameters_to_set', [{ a: 'b' }]],
    ['dynamic_metadata', []],
  ];
  for (const [key, value] of cases) {
    const decision = denied({ allowed: true, [key]: value });
    assert.equal(decision.code, 'malformed_decision', key);
    assert.match(decision.problem ?? '', new RegExp(`"${key}"`));
  }
});

test('a header that would cut up the next request or answer, or that no header is, makes the decision malformed', () => {
  for (const headers of [
    { 'Content-Length': '5' },
    { 'transfer-encoding': 'chunked' },
    { 'a b': '1' },
    { 'a:b': '1' },
    { ':': '1' },
    { a: 'b\u0001' },
    { a: '\u007f' },
  ]) {
    for (const value of [
      { allowed: true, headers },
      { allowed: true, response_headers_to_add: [{ ok: '1' }, headers] },
      { allowed: false, headers },
    ]) {
      const decision = parseDecision(value);
      assert.equal(decision.kind === 'deny' && decision.code, 'malformed_decision', JSON.stringify(value));
    }
  }
  const fine = { ':path': '/v2', 'X-A_b!': 'ä\t"', host: 'h' };
  assert.equal(parseDecision({ allowed: true, headers: fine }).kind, 'allow');
});

test('http_status is one that Envoy and Go know', () => {
  const known = [
    100, 200, 208, 226, 300, 305, 307, 308, 400, 417, 421, 424, 426, 428, 429, 431, 500, 508, 510, 511,
  ];
  for (const status of known)
    assert.equal(denied({ allowed: false, http_status: status }).httpStatus, status);
  for (const status of [
    0,
    1,
    101,
    103,
    209,
    306,
    309,
    418,
    420,
    425,
    427,
    430,
    451,
    509,
    512,
    9999,
    403.5,
    '403',
    null,
  ]) {
    assert.equal(denied({ allowed: false, http_status: status }).code, 'malformed_decision', String(status));
  }
});

test('no value makes it throw, and only a plain true or a true flag ever allows', () => {
  const flag = fc.oneof(fc.boolean(), fc.jsonValue());
  const object = fc.record(
    {
      allowed: flag,
      allow: flag,
      headers: fc.jsonValue(),
      http_status: fc.jsonValue(),
      body: fc.jsonValue(),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), object), (value) => {
      const decision = parseDecision(value);
      if (decision.kind === 'deny') return;
      const { allowed: a, allow: b } = value as { allowed?: unknown; allow?: unknown };
      assert.ok(value === true || ((a ?? b) === true && a !== false && b !== false));
    }),
  );
});

test('the decision is frozen', () => {
  for (const value of [true, false, undefined, { allowed: true, headers: { a: 'b' } }]) {
    const decision = parseDecision(value);
    assert.ok(Object.isFrozen(decision) && Object.isFrozen(decision.headers));
  }
});
