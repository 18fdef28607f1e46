import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeInput } from '../../../src/policy/input-text.ts';
import { MalformedError } from '../../../src/runtime/errors.ts';

test('any JSON value comes back as it was, with lone surrogates replaced as UTF-8 would', () => {
  const text = fc.string({ unit: fc.constantFrom('a', '\\', '"', '\ud800', '\udc00', 'ud800', '😀', '\n') });
  fc.assert(
    fc.property(fc.dictionary(text, text), (value) => {
      const expected = Object.entries(value).map(([k, v]) => [k.toWellFormed(), v.toWellFormed()]);
      assert.deepEqual(JSON.parse(encodeInput(Object.entries(value))), expected);
      assert.deepEqual(Object.keys(JSON.parse(encodeInput(value)) as object).length <= expected.length, true);
    }),
  );
});

test('undefined is null, and what JSON cannot hold is refused', () => {
  assert.equal(encodeInput(undefined), 'null');
  assert.throws(() => encodeInput(1n), MalformedError);
});

test('a large text is written as any other, wherever it stands', () => {
  const units = ['a', '\\', '"', '\u0001', '\ud800', '\udc00', '😀', '\n', 'é', '\u2028'];
  const parts = fc.array(fc.constantFrom(...units), { minLength: 1 });
  const rawJson = (text: string): unknown =>
    (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(text);
  fc.assert(
    fc.property(fc.integer({ min: 60_000, max: 140_000 }), parts, parts, (length, one, two) => {
      const [body, other] = [one, two].map((some) =>
        some
          .join('')
          .repeat(Math.ceil(length / some.length))
          .toWellFormed(),
      );
      const digits = `1${'0'.repeat(70_000)}`;
      const http = { body, ['__proto__']: other, method: 'POST' };
      const written = encodeInput({
        attributes: { request: { http }, list: [body] },
        number: rawJson(digits),
      });
      const rest = `"method":"POST"}},"list":[${JSON.stringify(body)}]},"number":${digits}}`;
      const texts = `{"body":${JSON.stringify(body)},"__proto__":${JSON.stringify(other)},`;
      // Without a look at the texts, which would fill the screen.
      assert.ok(written === `{"attributes":{"request":{"http":${texts}${rest}`);
    }),
    { numRuns: 30 },
  );
});

test('half a surrogate pair in a large text becomes U+FFFD, and pairs stay, also where the text is cut', () => {
  for (const before of [65_534, 65_535, 65_536]) {
    const body = `${'x'.repeat(before)}😀\ud800${'y'.repeat(70_000)}😀\udc00`;
    const { body: read } = JSON.parse(encodeInput({ body })) as { body: string };
    assert.ok(read === body.toWellFormed());
    assert.ok(!encodeInput({ body }).includes('\\ud'));
  }
});
