import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { valueAt, withoutNulls, withoutPath, withValue } from '../../../src/config/tree.ts';

describe('trees of plain data', () => {
  it('lose what is empty, but not the items of a list', () => {
    assert.deepEqual(withoutNulls({ a: null, b: { c: null, d: 1 }, e: [null, { f: null }] }), {
      b: { d: 1 },
      e: [null, {}],
    });
  });

  it('get a value at a path, with the sections on the way, and are not changed themselves', () => {
    const tree = Object.freeze({ a: Object.freeze({ b: 1 }) });
    assert.deepEqual(withValue(tree, ['a', 'c', 'd'], 2), { a: { b: 1, c: { d: 2 } } });
    assert.deepEqual(withValue(tree, ['a', 'b'], 2), { a: { b: 2 } });
    assert.deepEqual(withValue({}, ['a'], 1), { a: 1 });
  });

  it('stay as they are where something that is no section is in the way', () => {
    assert.deepEqual(withValue({ a: 5 }, ['a', 'b'], 1), { a: 5 });
    assert.deepEqual(withValue({ a: [] }, ['a', 'b'], 1), { a: [] });
  });

  it('lose an entry, or the whole list that a path leads into', () => {
    assert.deepEqual(withoutPath({ a: { b: 1, c: 2 } }, ['a', 'b']), { a: { c: 2 } });
    assert.deepEqual(withoutPath({ a: { b: [1, { c: 2 }] } }, ['a', 'b', 1, 'c']), { a: {} });
    assert.deepEqual(withoutPath({ a: 1 }, ['b', 'c']), { a: 1 });
  });

  it('are read without what objects inherit', () => {
    assert.equal(valueAt({ a: [{ b: 1 }] }, ['a', 0, 'b']), 1);
    assert.equal(valueAt({}, ['constructor']), undefined);
    assert.equal(valueAt({ a: [] }, ['a', 'length']), undefined);
  });

  it('hold __proto__ as a key like any other', () => {
    const tree = JSON.parse('{"__proto__": {"a": 1}}') as unknown;
    const copy = withoutNulls(tree) as object;
    assert.deepEqual(Object.keys(copy), ['__proto__']);
    assert.equal(Object.getPrototypeOf(copy), Object.prototype);
    assert.deepEqual(withoutPath(tree, ['__proto__']), {});
  });
});
