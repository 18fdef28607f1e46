import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeCheckRequest } from '../../../src/extauthz/check-request.ts';
import { headersOf } from '../../../src/extauthz/headers.ts';
import { getRequest, onTheWire } from './harness.ts';

test('headers come from header_map when there is nothing else', () => {
  const { headers, attributes } = decodeCheckRequest(
    onTheWire({
      request: {
        http: {
          headerMap: {
            headers: [
              { key: ':path', rawValue: Buffer.from('/a') },
              { key: 'X-Twice', value: '1' },
              { key: 'x-twice', rawValue: Buffer.from('2') },
              { key: 'x-binary', rawValue: Buffer.from([0xff, 0x41]) },
              { key: '__proto__', value: 'own' },
            ],
          },
        },
      },
    }),
  );
  assert.deepEqual(Object.entries(headers), [
    [':path', '/a'],
    ['x-twice', '1,2'],
    ['x-binary', '\ufffdA'],
    ['__proto__', 'own'],
  ]);
  assert.equal(attributes?.request?.http?.headers, undefined);
});

test('header names are found in lower case however they were sent', () => {
  const headers = headersOf({ headers: { 'X-A': '1', 'x-a': '2', 'x-b': '3' } });
  assert.deepEqual({ ...headers }, { 'x-a': '1,2', 'x-b': '3' });
});

test('headers win over header_map', () => {
  const headers = headersOf({ headers: { a: '1' }, headerMap: { headers: [{ key: 'a', value: '2' }] } });
  assert.equal(headers['a'], '1');
});

test('no header is found that nobody sent', () => {
  const { headers } = decodeCheckRequest(onTheWire(getRequest()));
  for (const name of ['constructor', 'toString', '__proto__', 'hasOwnProperty'])
    assert.equal(headers[name], undefined);
});
