import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { applyMask, parseMask } from '../../../../src/extauthz/decision-log/log-mask.ts';
import { AppError, MalformedError } from '../../../../src/runtime/errors.ts';

const event = {
  decision_id: '1',
  input: { user: { name: 'ann', pin: 1234 }, list: [{ a: 1 }, { a: 2 }], headers: { 'X-Key': 'k' } },
  result: { allowed: false, reason: 'pin 1234 is wrong' },
  erased: ['/input/gone'],
  reason: 'pin 1234 is wrong',
};
const mask = (value: unknown) => applyMask(event, parseMask(value));

test('no mask, and a mask that names nothing, leave the record as it is', () => {
  for (const value of [undefined, [], ['/input/nobody', '/input/user/name/first', '/nd_builtin_cache/x']]) {
    assert.deepEqual(mask(value), event);
  }
});

test('pointers and remove operations erase, and say so', () => {
  const { input, erased, reason } = mask([
    '/input/user/pin',
    { op: 'remove', path: '/input/list/0' },
    '/input/headers/x-key',
  ]) as typeof event;
  assert.deepEqual(input, { user: { name: 'ann' }, list: [{ a: 2 }], headers: {} });
  assert.deepEqual(erased, ['/input/gone', '/input/user/pin', '/input/list/0', '/input/headers/X-Key']);
  assert.equal(reason, event.reason);
});

test('upsert replaces, makes what is missing, and says so', () => {
  const { input, masked } = mask([
    { op: 'upsert', path: '/input/user/pin', value: '****' },
    { op: 'upsert', path: '/input/new/deep', value: { a: null } },
    { op: 'upsert', path: '/input/list/1/a' },
  ]) as unknown as { input: Record<string, unknown>; masked: string[] };
  assert.deepEqual(input['user'], { name: 'ann', pin: '****' });
  assert.deepEqual(input['new'], { deep: { a: null } });
  assert.deepEqual(input['list'], [{ a: 1 }, { a: null }]);
  assert.deepEqual(masked, ['/input/user/pin', '/input/new/deep', '/input/list/1/a']);
  assert.deepEqual(event.input.user, { name: 'ann', pin: 1234 });
});

test('whole documents go', () => {
  const record = mask(['/input', '/result']);
  assert.equal('input' in record || 'result' in record, false);
});

test('a mask on the result takes the reason that came out of it, too', () => {
  assert.equal('reason' in mask(['/result/reason']), false);
  assert.equal('reason' in mask([{ op: 'upsert', path: '/result', value: {} }]), false);
});

test('a member called __proto__ is a member like any other', () => {
  const { input } = mask([{ op: 'upsert', path: '/input/__proto__/a', value: 1 }]) as typeof event;
  assert.equal(Object.hasOwn(input, '__proto__'), true);
  assert.equal(({} as Record<string, unknown>)['a'], undefined);
});

for (const [name, value] of [
  ['that is no list', { a: '/input' }],
  ['with a number', [1]],
  ['with a pointer elsewhere', ['/decision_id']],
  ['without a path', [{ op: 'remove' }]],
  ['with another operation', [{ op: 'add', path: '/input/a', value: 1 }]],
  ['of too many operations', Array.from({ length: 1001 }, () => '/input/a')],
  ['into a text', [{ op: 'upsert', path: '/input/user/name/first', value: 1 }]],
  ['beyond a list', [{ op: 'upsert', path: '/input/list/2', value: 1 }]],
] as const) {
  test(`a mask ${name} is refused`, () => assert.throws(() => mask(value), MalformedError));
}

test('whatever a policy gives, a mask is applied or refused', () => {
  const path = fc.oneof(
    fc.constantFrom('/input/user/pin', '/input/list/0', '/result', '/input/list/a'),
    fc.string(),
  );
  const operation = fc.record({ op: fc.constantFrom('remove', 'upsert', 'x'), path, value: fc.jsonValue() });
  fc.assert(
    fc.property(fc.oneof(fc.array(fc.oneof(path, operation)), fc.jsonValue()), (value) => {
      try {
        mask(value);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});
