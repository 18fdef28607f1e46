import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseXfcc } from '../../../../src/extauthz/peer/xfcc.ts';
import { AppError, LimitError, MalformedError } from '../../../../src/runtime/errors.ts';

const none = { cert: undefined, chain: undefined, earlierCerts: [] };

for (const [text, expected] of [
  ['URI=spiffe://a/b', { ...none, uris: ['spiffe://a/b'] }],
  ['By=spiffe://a/s;Hash=0a;URI=spiffe://a/b', { ...none, uris: ['spiffe://a/b'] }],
  ['URI=spiffe://a/first,By=x;URI=spiffe://a/last', { ...none, uris: ['spiffe://a/last'] }],
  ['URI=spiffe://a/first,By=x', { ...none, uris: [] }],
  ['URI=spiffe://a/1;URI=spiffe://a/2', { ...none, uris: ['spiffe://a/1', 'spiffe://a/2'] }],
  ['uri=spiffe://a/b', { ...none, uris: ['spiffe://a/b'] }],
  ['URI="spiffe://a/b"', { ...none, uris: ['spiffe://a/b'] }],
  ['Subject="CN=a,URI=spiffe://a/forged;O=\\"x\\"";URI=spiffe://a/b', { ...none, uris: ['spiffe://a/b'] }],
  ['Subject="\\",URI=spiffe://a/forged",By=x', { ...none, uris: [] }],
  ['Cert="a%0A";Chain="b"', { ...none, uris: [], cert: 'a%0A', chain: 'b' }],
  ['Cert=a;Chain=b,Chain=c,URI=x,Cert=d', { ...none, uris: [], cert: 'd', earlierCerts: ['a', 'c'] }],
  ['URI=;DNS=', { ...none, uris: [''] }],
  ['URI="a\\\\"', { ...none, uris: ['a\\'] }],
  ['Subject="" , URI=x ', { ...none, uris: ['x'] }],
] as const) {
  test(`reads ${text}`, () => assert.deepEqual(parseXfcc(text), expected));
}

for (const text of [
  '',
  ',',
  'URI',
  '=x',
  'URI=a;',
  'URI=a,',
  'URI="a',
  'URI="a\\"',
  'URI=a"b',
  'URI="a"b',
  'U RI=a',
  'Cert=a;Cert=b',
  'Cert=a;Cert=b,URI=a',
]) {
  test(`refuses ${JSON.stringify(text)}`, () => assert.throws(() => parseXfcc(text), MalformedError));
}

test('refuses a header without end, and reads a long one in bounded time', () => {
  assert.throws(() => parseXfcc(`URI=${'a'.repeat(300_000)}`), LimitError);
  assert.throws(() => parseXfcc(`${'URI=a,'.repeat(32)}URI=a`), LimitError);
  assert.deepEqual(parseXfcc(`${'URI=a,'.repeat(31)}URI=a`).uris, ['a']);
  const started = performance.now();
  for (const part of [' ', '\\', 'a=', 'a=b;', ',', '"']) {
    try {
      parseXfcc(`URI="${part.repeat(60_000)}`);
      parseXfcc(`URI=${part.repeat(60_000)}"`);
    } catch (error) {
      assert.ok(error instanceof AppError);
    }
  }
  assert.ok(performance.now() - started < 2_000);
});

test('whatever stands in a quoted value of an earlier pair, the URI is the one that was written', () => {
  fc.assert(
    fc.property(fc.string(), fc.stringMatching(/^spiffe:\/\/[a-z.]{1,9}\/[a-z]{1,9}$/), (subject, uri) => {
      const quoted = subject.replaceAll(/["\\]/g, '\\$&').replaceAll(/[\n\r\u2028\u2029]/g, ' ');
      assert.deepEqual(parseXfcc(`By=x,Subject="${quoted}";URI=${uri}`).uris, [uri]);
    }),
  );
});

test('whatever the text, it is read or refused by an AppError', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('"', '\\', ',', ';', '=', 'URI', 'a', ' ') }), (text) => {
      try {
        parseXfcc(text);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});
