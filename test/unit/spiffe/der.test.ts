import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import {
  decodeBoolean,
  decodeNamedBits,
  decodeOid,
  decodeTime,
  decodeUnsignedHex,
  derTag,
  readDer,
  readSingleDer,
  splitDer,
} from '../../../src/spiffe/der.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

function element(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(tag, ...size), content]);
}

test('concatenated elements come apart as they were put together', () => {
  const elements = fc.tuple(
    fc.constantFrom(...Object.values(derTag)),
    fc.uint8Array({ maxLength: 700, size: 'max' }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(fc.array(elements, { maxLength: 5 }), (parts) => {
      const split = splitDer(Buffer.concat(parts.map(([tag, content]) => element(tag, content))));
      assert.deepEqual(
        split.map(({ tag, content }) => [tag, content]),
        parts,
      );
    }),
  );
});

test('whatever the bytes, the splitter covers them all or throws an AppError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const input = Buffer.from(bytes);
      try {
        assert.deepEqual(Buffer.concat(splitDer(input).map(({ raw }) => raw)), input);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});

for (const [what, bytes, message] of [
  ['no bytes at all', '', /inside a header/],
  ['a tag alone', '30', /inside a header/],
  ['a value cut short', '30 03 01 02', /inside a value/],
  ['a length cut short', '30 82 01', /inside a header/],
  ['an indefinite length', '30 80 00 00', /indefinite/],
  ['a long form that the short form would do for', '04 81 01 00', /shortest/],
  ['a length with a leading zero', `04 82 00 80 ${'00'.repeat(128)}`, /shortest/],
  ['a length of five bytes', '30 85 01 00 00 00 00', /four bytes/],
  ['a tag of two bytes', '1f 81 00', /more than one byte/],
] as const) {
  test(`${what} is refused`, () =>
    assert.throws(
      () => readDer(hex(bytes)),
      (error) => error instanceof MalformedError && message.test(error.message),
    ));
}

test('a single element has the tag asked for and nothing behind it', () => {
  assert.deepEqual(readSingleDer(hex('04 01 07'), derTag.octetString).content, hex('07'));
  assert.throws(() => readSingleDer(hex('04 01 07 00'), derTag.octetString), /followed/);
  assert.throws(() => readSingleDer(hex('04 01 07'), derTag.sequence), /tag 0x4/);
});

test('more elements than allowed are a LimitError', () => {
  assert.equal(splitDer(hex('05 00 05 00'), 2).length, 2);
  assert.throws(() => splitDer(hex('05 00 05 00 05 00'), 2), LimitError);
});

test('object identifiers are read, broken ones refused', () => {
  assert.equal(decodeOid(hex('55 1d 11')), '2.5.29.17');
  assert.equal(decodeOid(hex('2b 06 01 05 05 07 03 01')), '1.3.6.1.5.5.7.3.1');
  assert.equal(decodeOid(hex('2a 86 48 86 f7 0d 01 01 0b')), '1.2.840.113549.1.1.11');
  assert.equal(decodeOid(hex('88 37 03')), '2.999.3');
  for (const broken of ['', '55 1d 80', '55 80 01', `55 ${'ff'.repeat(9)} 7f`]) {
    assert.throws(() => decodeOid(hex(broken)), MalformedError);
  }
});

test('booleans are 00 or ff', () => {
  assert.equal(decodeBoolean(hex('ff')), true);
  assert.equal(decodeBoolean(hex('00')), false);
  for (const broken of ['', '01', 'ff ff']) assert.throws(() => decodeBoolean(hex(broken)), MalformedError);
});

test('unsigned integers are hex without leading zeros, in their shortest form only', () => {
  assert.equal(decodeUnsignedHex(hex('00')), '0');
  assert.equal(decodeUnsignedHex(hex('01 00')), '100');
  assert.equal(decodeUnsignedHex(hex('00 ff')), 'ff');
  for (const broken of ['', '80', '00 7f', '00 00'])
    assert.throws(() => decodeUnsignedHex(hex(broken)), MalformedError);
});

test('named bits are numbered from the left, and padding is zero', () => {
  assert.deepEqual([...decodeNamedBits(hex('07 80'))], [0]);
  assert.deepEqual([...decodeNamedBits(hex('01 06'))], [5, 6]);
  assert.deepEqual([...decodeNamedBits(hex('07 00 80'))], [8]);
  assert.deepEqual([...decodeNamedBits(hex('00'))], []);
  for (const broken of ['', '08 00', '01', '01 01'])
    assert.throws(() => decodeNamedBits(hex(broken)), MalformedError);
});

test('times are read in the two forms of RFC 5280 and no other', () => {
  const time = (tag: number, text: string): number => decodeTime(readDer(element(tag, Buffer.from(text))));
  assert.equal(time(derTag.utcTime, '260102030405Z'), Date.parse('2026-01-02T03:04:05Z'));
  assert.equal(time(derTag.utcTime, '500101000000Z'), Date.parse('1950-01-01T00:00:00Z'));
  assert.equal(time(derTag.utcTime, '491231235959Z'), Date.parse('2049-12-31T23:59:59Z'));
  assert.equal(time(derTag.generalizedTime, '99991231235959Z'), Date.parse('9999-12-31T23:59:59Z'));
  assert.equal(time(derTag.generalizedTime, '20240229000000Z'), Date.parse('2024-02-29T00:00:00Z'));
  for (const broken of [
    '2601020304Z',
    '260102030405',
    '260102030405+0100',
    '260230000000Z',
    '261301000000Z',
    '260101240000Z',
  ]) {
    assert.throws(() => time(derTag.utcTime, broken), MalformedError);
  }
  assert.throws(() => time(derTag.generalizedTime, '20260102030405.5Z'), MalformedError);
  assert.throws(() => time(derTag.octetString, '260102030405Z'), MalformedError);
});
