import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalJson as canonical } from '../../../../src/policy/bundle/canonical-json.ts';
import { AppError } from '../../../../src/runtime/errors.ts';

const canonicalJson = (text: string): string => canonical(Buffer.from(text), 'text');

test('keys are ordered by their bytes and numbers keep their digits', () => {
  const text =
    '{ "\u{1f600}": 1.0, "\uffff": 12345678901234567890, "10": [true, null, -0], "9": {"__proto__": "<"} }';
  assert.equal(
    canonicalJson(text),
    '{"10":[true,null,-0],"9":{"__proto__":"<"},"\uffff":12345678901234567890,"\u{1f600}":1.0}',
  );
});

test('any text is either JSON of the same value or refused', () => {
  fc.assert(
    fc.property(fc.json(), (text) => assert.deepEqual(JSON.parse(canonicalJson(text)), JSON.parse(text))),
  );
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        canonicalJson(text);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
  assert.throws(() => canonicalJson('['.repeat(1_000_000)), AppError);
});

test('a key written with escapes is that key, whatever was read before', () => {
  const records = Array.from({ length: 20 }, () => '{"allow":1,"deny":2}').join(',');
  assert.equal(
    canonicalJson(`[${records},{"all\\u006fw":1,"d\\u0065ny":2},{"d\\u0065ny":1}]`),
    `[${records},{"allow":1,"deny":2},{"deny":1}]`,
  );
  assert.equal(canonicalJson('["\\ud800", "\\u00e9", 1 ]'), '["\ufffd","é",1]');
  assert.equal(canonicalJson(' 1.0 \n'), '1.0');
});

test('keys of any characters are ordered as their bytes are', () => {
  const key = fc.string({
    unit: fc.constantFrom('a', 'z', 'é', '\ud7ff', '\uffff', '\u{1f600}'),
    maxLength: 3,
  });
  fc.assert(
    fc.property(fc.uniqueArray(key, { maxLength: 8 }), (keys) => {
      const text = canonicalJson(JSON.stringify(Object.fromEntries(keys.map((one) => [one, 0]))));
      const sorted = keys.map((one) => Buffer.from(one)).sort((a, b) => Buffer.compare(a, b));
      assert.equal(text, `{${sorted.map((one) => `${JSON.stringify(one.toString())}:0`).join(',')}}`);
    }),
  );
});
