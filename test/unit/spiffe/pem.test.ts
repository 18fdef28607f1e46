import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { decodePem, encodePem } from '../../../src/spiffe/pem.ts';

const bytes = fc.uint8Array({ minLength: 1, maxLength: 300, size: 'max' }).map((array) => Buffer.from(array));
const decode = (pem: string): readonly Buffer[] => decodePem(pem, 'CERTIFICATE', 8, 1024);

test('what is encoded is decoded again, block by block', () => {
  fc.assert(
    fc.property(fc.array(bytes, { maxLength: 8 }), (ders) => {
      const pem = Buffer.concat(ders.map((der) => encodePem('CERTIFICATE', der))).toString();
      assert.deepEqual(decode(pem), ders);
    }),
  );
});

test('lines have 64 columns and the text ends with a newline', () => {
  fc.assert(
    fc.property(bytes, (der) => {
      const lines = encodePem('PRIVATE KEY', der).toString().split('\n');
      const body = der.toString('base64').match(/.{1,64}/g) ?? [];
      assert.deepEqual(lines, ['-----BEGIN PRIVATE KEY-----', ...body, '-----END PRIVATE KEY-----', '']);
    }),
  );
});

test('whatever the text, the decoder answers or throws an AppError', () => {
  const pieces = fc.constantFrom(
    '-----BEGIN CERTIFICATE-----',
    '-----END CERTIFICATE-----',
    '-----',
    'AAAA',
    '\n',
    '=',
    'x',
  );
  const texts = fc.oneof(
    fc.string(),
    fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(texts, (text) => {
      try {
        decode(text);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});

test('text around blocks and other line ends are fine', () => {
  const pem =
    'subject=/CN=x\r\n-----BEGIN CERTIFICATE-----\r\nAAEC\r\n-----END CERTIFICATE-----\r\ntrailing words\r\n';
  assert.deepEqual(decode(pem), [Buffer.of(0, 1, 2)]);
});

test('empty text has no blocks', () => assert.deepEqual(decode(' \n'), []));

for (const [what, text, message] of [
  ['text without a block', 'hello', /no CERTIFICATE block/],
  ['a private key', encodePem('PRIVATE KEY', Buffer.of(1)).toString(), /PRIVATE KEY, only CERTIFICATE/],
  ['a block without an end', '-----BEGIN CERTIFICATE-----\nAAEC\n', /does not end/],
  ['a block with another end', '-----BEGIN CERTIFICATE-----\nAAEC\n-----END X-----', /does not end/],
  ['an empty block', '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----', /broken base64/],
  [
    'a block with other characters',
    '-----BEGIN CERTIFICATE-----\nAA*C\n-----END CERTIFICATE-----',
    /broken base64/,
  ],
  ['a block cut short', '-----BEGIN CERTIFICATE-----\nAAE\n-----END CERTIFICATE-----', /broken base64/],
] as const) {
  test(`${what} is refused`, () =>
    assert.throws(
      () => decode(text),
      (error) => error instanceof MalformedError && message.test(error.message),
    ));
}

test('more blocks or bytes than allowed are a LimitError', () => {
  const one = encodePem('CERTIFICATE', Buffer.of(1)).toString();
  assert.equal(decode(one.repeat(8)).length, 8);
  assert.throws(() => decode(one.repeat(9)), LimitError);
  assert.throws(() => decode(' '.repeat(8 * 1024 * 2 + 1)), LimitError);
});
