import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import { queryText, withEverySpelling } from '../../../src/extauthz/query-changes.ts';
import { type AllowDecision, parseDecision } from '../../../src/policy/decision.ts';
import { answering, checkOnce, createTrust, getRequest, type Trust } from './harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

function changes(change: object): AllowDecision {
  const decision = parseDecision({ allowed: true, ...change });
  assert.ok(decision.kind === 'allow');
  return decision;
}

for (const [text, value, name] of [
  ['plain-text_1.~', 'plain-text_1.~', 'plain-text_1.~'],
  ['a&admin=1', 'a%26admin=1', 'a%26admin%3D1'],
  ['a#b', 'a%23b', 'a%23b'],
  ['a b HTTP/1.1', 'a%20b%20HTTP/1.1', 'a%20b%20HTTP/1.1'],
  ['a;b\t\x7f"<>', 'a%3Bb%09%7F%22%3C%3E', 'a%3Bb%09%7F%22%3C%3E'],
  ['ä\ud83d\ude00', '%C3%A4%F0%9F%98%80', '%C3%A4%F0%9F%98%80'],
  ['\ud800', '%EF%BF%BD', '%EF%BF%BD'],
  ['escaped%20by+policy', 'escaped%20by+policy', 'escaped%20by+policy'],
] as const) {
  test(`${JSON.stringify(text)} is one value, and one name`, () => {
    assert.equal(queryText(text, 'value'), value);
    assert.equal(queryText(text, 'name'), name);
  });
}

test('whatever a policy sets, the query has one more parameter, and it is that one', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', minLength: 1 }), fc.string({ unit: 'binary' }), (name, value) => {
      fc.pre(!/[%+]/.test(name + value));
      const query = new URL(`http://h/?a=1&${queryText(name, 'name')}=${queryText(value, 'value')}&z=2`);
      assert.deepEqual(
        [...query.searchParams],
        [
          ['a', '1'],
          [name.toWellFormed(), value.toWellFormed()],
          ['z', '2'],
        ],
      );
    }),
  );
});

test('every spelling of a name that is set or removed goes, and nothing else', () => {
  const path = '/p?%61dmin=1&adm%69n&admin=2&ADMIN=3&b=%61dmin&us%65r=eve&user=bob&a+b=1&%zz=1&%61%64min=';
  const decision = changes({
    query_parameters_to_remove: ['admin', 'a b'],
    query_parameters_to_set: { user: 'alice' },
  });
  assert.deepEqual(withEverySpelling(decision, path).queryParametersToRemove, [
    'admin',
    'a b',
    '%61dmin',
    'adm%69n',
    'us%65r',
    'a+b',
    '%61%64min',
  ]);
});

test('a decision without changes of the query, or for a path without one, stays as it is', () => {
  const nothing = changes({});
  assert.equal(withEverySpelling(nothing, '/p?%61=1'), nothing);
  const removal = changes({ query_parameters_to_remove: ['a'] });
  assert.equal(withEverySpelling(removal, '/%61'), removal);
  assert.equal(withEverySpelling(removal, '/p?a=1&b=%61'), removal);
});

test('a Check is answered with the spellings of its own path', async () => {
  const engine = answering({ allowed: true, query_parameters_to_remove: ['role'] });
  const { outcome } = await checkOnce(trust, { engine }, getRequest({ path: '/v1?r%6fle=admin' }));
  assert.ok(outcome.kind === 'allowed');
  assert.deepEqual(outcome.decision.queryParametersToRemove, ['role', 'r%6fle']);
});
