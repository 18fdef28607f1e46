import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasEscapedKey, readJson } from '../../../src/extauthz/escaped-keys.ts';
import { parseExactJson } from '../../../src/extauthz/exact-json.ts';

test('a key with an escape is found wherever it stands, a value with one is not taken for it', () => {
  for (const text of ['{"\\u0061":1}', '[{"x":{"a\\\\" \n: 1}}]', '{"a":"\\"","\\"":1}', '{"a\\n":1}']) {
    assert.equal(hasEscapedKey(text), true, text);
  }
  for (const text of [
    '{"a":1}',
    '{"a":"\\u0061"}',
    '["\\":",{"b":"\\\\"}]',
    '"\\n"',
    '1',
    '{"a":"x:\\"y\\":"}',
  ]) {
    assert.equal(hasEscapedKey(text), false, text);
  }
});

test('a client cannot hide a member from a policy by a key of another body', () => {
  const secret = { x: 1, admin: true };
  // After this V8 takes the next key of an object with x for \\u006, if it begins so as written.
  for (let i = 0; i < 3; i++) parseExactJson('{"x":1,"\\\\u006":2}');
  JSON.parse('{"x":1,"\\\\u006":2}');
  assert.deepEqual({ ...(parseExactJson('{"x":1,"\\u0061dmin":true}') as object) }, secret);
  assert.equal(
    JSON.stringify(parseExactJson('[{"x":1,"\\u0061dmin":1},{"x":1,"\\u0061dmin":12345678901234567890}]')),
    '[{"x":1,"admin":1},{"x":1,"admin":12345678901234567890}]',
  );
});

test('of equal keys the last counts, however they are written', () => {
  assert.equal(JSON.stringify(parseExactJson('{"a":1,"\\u0061":2,"a":3}')), '{"a":3}');
  assert.equal(JSON.stringify(parseExactJson('{"1":1,"\\u0031":2}')), '{"1":2}');
  assert.equal(JSON.stringify(parseExactJson('{"\\u005f_proto__":{"a":1}}')), '{"__proto__":{"a":1}}');
});

test('any JSON is read as what it was written from', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom('', ' ', '\t', '\r\n'), (value, space) => {
      // Compared as text: JSON.parse, whose word on escaped keys is in doubt, has no part in it.
      const written = JSON.stringify(value);
      const read = readJson(`${space}${JSON.stringify(value, undefined, space)}${space}`, Number);
      assert.equal(JSON.stringify(read), written);
    }),
  );
});
