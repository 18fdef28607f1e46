import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MalformedError } from '../../../src/runtime/errors.ts';
import { parseHttpsUrl } from '../../../src/runtime/https-url.ts';

test('an https URL is given in its normal form', () => {
  assert.equal(parseHttpsUrl('https://spire.example:8443'), 'https://spire.example:8443/');
  assert.equal(parseHttpsUrl('HTTPS://Spire.Example/a?b=c'), 'https://spire.example/a?b=c');
});

for (const text of [
  '',
  'spire.example',
  'http://spire.example',
  'https://',
  'https://user@spire.example',
  'https://:secret@spire.example',
  'https://spire.example/#a',
  `https://spire.example/${'a'.repeat(2048)}`,
]) {
  test(`${text.slice(0, 40) || 'nothing'} is refused`, () => {
    assert.throws(() => parseHttpsUrl(text), MalformedError);
  });
}

test('any text gives an https URL that reads back as itself, or a MalformedError', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.webUrl({ validSchemes: ['https', 'http'] })), (text) => {
      let url: string;
      try {
        url = parseHttpsUrl(text);
      } catch (error) {
        assert.ok(error instanceof MalformedError);
        return;
      }
      assert.equal(parseHttpsUrl(url), url);
      assert.equal(new URL(url).protocol, 'https:');
    }),
  );
});
