import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { parseBody } from '../../../../src/extauthz/body/body.ts';
import { parseDescriptorSet } from '../../../../src/extauthz/body/proto-descriptor.ts';
import { LimitError, MalformedError } from '../../../../src/runtime/errors.ts';
import { compileProto } from '../../../support/descriptors.ts';

const { descriptorSet, encode } = compileProto(`
syntax = "proto3";
package shop;
message Order { string id = 1; }
service Shop {
  rpc Buy (Order) returns (Order);
  rpc Watch (Order) returns (stream Order);
  rpc Load (stream Order) returns (Order);
}
`);
const types = parseDescriptorSet(descriptorSet);
const message = encode('shop.Order', { id: '7' });

function frame(bytes: Buffer, flag = 0, length = bytes.length): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt8(flag);
  header.writeUInt32BE(length, 1);
  return Buffer.concat([header, bytes]);
}

function bodyOf(
  path: string,
  rawBody: Buffer | undefined,
  headers: Record<string, string> = {},
  maxBytes = 1000,
) {
  const http = rawBody === undefined ? { path } : { path, rawBody };
  const parsed = parseBody(http, { 'content-type': 'application/grpc', ...headers }, maxBytes, types);
  return JSON.parse(JSON.stringify([parsed.parsed, parsed.truncated])) as unknown;
}

const gzip = { 'grpc-encoding': 'gzip' };

for (const [what, path, body, headers, expected] of [
  ['a message', '/shop.Shop/Buy', frame(message), {}, [{ id: '7' }, false]],
  ['the message of a stream of answers', '/shop.Shop/Watch', frame(message), {}, [{ id: '7' }, false]],
  [
    'the first of two messages',
    '/shop.Shop/Buy',
    Buffer.concat([frame(message), frame(message)]),
    {},
    [{ id: '7' }, false],
  ],
  ['a message of no bytes', '/shop.Shop/Buy', frame(Buffer.alloc(0)), {}, [{}, false]],
  ['of a stream of messages nothing', '/shop.Shop/Load', frame(message), {}, [null, false]],
  ['of an unknown method nothing', '/shop.Shop/Sell', frame(message), {}, [null, false]],
  ['of an unknown service nothing', '/shop.Other/Buy', frame(message), {}, [null, false]],
  ['without a body nothing', '/shop.Shop/Buy', undefined, {}, [null, false]],
  ['of a frame that is cut off nothing', '/shop.Shop/Buy', frame(message, 0, 100), {}, [null, true]],
  [
    'a message compressed with gzip',
    '/shop.Shop/Buy',
    frame(gzipSync(message), 1),
    gzip,
    [{ id: '7' }, false],
  ],
  [
    'of another compression nothing',
    '/shop.Shop/Buy',
    frame(message, 1),
    { 'grpc-encoding': 'zstd' },
    [null, false],
  ],
  ['of an unnamed compression nothing', '/shop.Shop/Buy', frame(gzipSync(message), 1), {}, [null, false]],
] as const) {
  test(`reads ${what}`, () => assert.deepEqual(bodyOf(path, body, headers), expected));
}

for (const [what, path, body, headers, error] of [
  ['a path of one part', '/shop.Shop', frame(message), {}, MalformedError],
  ['a path of three parts', '/shop.Shop/Buy/x', frame(message), {}, MalformedError],
  ['less than a frame', '/shop.Shop/Buy', Buffer.alloc(4), {}, MalformedError],
  ['bytes that are no message', '/shop.Shop/Buy', frame(Buffer.from([0x0a])), {}, MalformedError],
  ['bytes that are no gzip', '/shop.Shop/Buy', frame(message, 1), gzip, MalformedError],
  ['more bytes than are parsed', '/shop.Shop/Buy', Buffer.alloc(1001), {}, LimitError],
  [
    'a message that is too large once unpacked',
    '/shop.Shop/Buy',
    frame(gzipSync(Buffer.alloc(100_000)), 1),
    gzip,
    LimitError,
  ],
] as const) {
  test(`refuses ${what}`, () => assert.throws(() => bodyOf(path, body, headers), error));
}

test('a body that is text is not parsed, and neither is any without descriptors', () => {
  const headers = { 'content-type': 'application/grpc' };
  assert.equal(parseBody({ path: '/shop.Shop/Buy', body: 'x' }, headers, 100, types).parsed, null);
  assert.equal(parseBody({ path: '/shop.Shop/Buy', rawBody: frame(message) }, headers, 100).parsed, null);
});
