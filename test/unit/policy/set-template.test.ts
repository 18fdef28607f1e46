import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compileTemplate } from '../../../src/policy/set-template.ts';
import type { JsonValue } from '../../../src/runtime/json-value.ts';

const noReport = (): void => {};

test('a template without references is given as it is, whatever its shape', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value).replaceAll(/[{}]/g, '');
      assert.equal(compileTemplate(text, new Set(), noReport)({}), text);
      assert.deepEqual(compileTemplate([1, null, { a: text }], new Set(), noReport)({}), [
        1,
        null,
        { a: text },
      ]);
    }),
  );
});

test('every unknown name is reported where it stands', () => {
  const reports: string[] = [];
  const value: JsonValue = { a: ['x', '{b}'], c: { d: '{e}{known}' } };
  compileTemplate(value, new Set(['known']), (path, message) => reports.push(`${path} ${message}`));
  assert.deepEqual(reports, [
    ".a[1] {b} is not captured by this query's match",
    ".c.d {e} is not captured by this query's match",
  ]);
});

test('one unusable capture anywhere leaves nothing of the template', () => {
  const fill = compileTemplate({ a: 'x', b: [{ c: 'spiffe://td/agent-{id}/x' }] }, new Set(['id']), noReport);
  assert.deepEqual(fill({ id: '7' }), { a: 'x', b: [{ c: 'spiffe://td/agent-7/x' }] });
  for (const id of ['', '/', 'a b', 'ä', '%41']) assert.equal(fill({ id }), undefined);
});

test('a dot segment cannot become one of a SPIFFE ID', () => {
  const fill = compileTemplate('spiffe://td/{id}', new Set(['id']), noReport);
  for (const id of ['.', '..']) assert.equal(fill({ id }), undefined);
});
