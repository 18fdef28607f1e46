import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseForm, parsePath, parseQuery, percentDecode } from '../../../src/extauthz/path-and-query.ts';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';

test('a path is decoded, stripped of leading slashes and split', () => {
  const cases: [string, string[]][] = [
    ['', ['']],
    ['/', ['']],
    ['/a/b', ['a', 'b']],
    ['///a//b/', ['a', '', 'b', '']],
    ['/a%2Fb', ['a', 'b']],
    ['%2F%2Fa', ['a']],
    ['/a+b%20c', ['a+b c']],
    ['/%C3%A9', ['é']],
    ['/a?b/c', ['a']],
    ['/%FF', ['\ufffd']],
    ['/é%FF%C3%A9', ['é\ufffdé']],
    ['*', ['*']],
  ];
  for (const [path, expected] of cases) assert.deepEqual(parsePath(path), expected, path);
});

test('a query gives every value of every name, in order', () => {
  const cases: [string, Record<string, string[]>][] = [
    ['/a', {}],
    ['/a?', {}],
    ['/a?x=1&y=2&x=3', { x: ['1', '3'], y: ['2'] }],
    ['/a?x', { x: [''] }],
    ['/a?=v', { '': ['v'] }],
    ['/a?x=a+b%2Bc', { x: ['a b+c'] }],
    ['/a?x=1=2&&y=', { x: ['1=2'], y: [''] }],
    ['/a?b=c?d', { b: ['c?d'] }],
    ['/a?__proto__=1&constructor=2', JSON.parse('{"__proto__":["1"],"constructor":["2"]}')],
  ];
  for (const [path, expected] of cases) {
    assert.deepEqual(Object.entries(parseQuery(path)), Object.entries(expected), path);
  }
});

test('a broken escape or a semicolon is malformed', () => {
  for (const text of ['%', '%a', '%zz', 'a%2', 'a=%g0', 'a;b', 'a=1;b=2', '%;']) {
    assert.throws(() => parseForm(text, 'form'), MalformedError, text);
  }
  assert.throws(() => parsePath('/%zz'), MalformedError);
});

test('more than ten thousand parameters are refused', () => {
  assert.equal(Object.keys(parseForm('a&'.repeat(9_999), 'form')).length, 1);
  assert.throws(() => parseForm('a&'.repeat(10_001), 'form'), LimitError);
});

test('what encodeURIComponent writes is read back', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      assert.equal(percentDecode(encodeURIComponent(text), 'text'), text);
    }),
  );
});

test('what URLSearchParams writes is read back', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }))),
      (pairs) => {
        const parsed = parseForm(new URLSearchParams(pairs).toString(), 'form');
        for (const [name, value] of pairs) assert.ok(parsed[name]?.includes(value));
      },
    ),
  );
});

test('any text parses or is refused with an AppError', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      for (const parse of [parsePath, parseQuery, (t: string) => parseForm(t, 'form')]) {
        try {
          parse(text);
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }
    }),
  );
});

test('escapes of bytes that are no UTF-8 become U+FFFD, and all else around them stays', () => {
  const escaped = (bytes: Buffer): string =>
    [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.string({ unit: 'grapheme' }), fc.uint8Array())), (pieces) => {
      const text = pieces
        .map((piece) =>
          typeof piece === 'string' ? piece.replaceAll('%', '%25') : escaped(Buffer.from(piece)),
        )
        .join('');
      const expected = Buffer.concat(pieces.map((piece) => Buffer.from(piece as string))).toString();
      assert.equal(percentDecode(text, 'path'), expected);
    }),
  );
});
