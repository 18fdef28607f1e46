import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDescriptorSet } from '../../../../src/extauthz/body/proto-descriptor.ts';
import { protoToJson } from '../../../../src/extauthz/body/proto-json.ts';
import { AppError, LimitError, MalformedError } from '../../../../src/runtime/errors.ts';
import { compileProto } from '../../../support/descriptors.ts';

const { descriptorSet, encode } = compileProto(`
syntax = "proto3";
package shop;
enum Kind { KIND_UNKNOWN = 0; KIND_BOOK = 1; }
message Order {
  string order_id = 1;
  int64 amount = 2;
  uint64 big = 3;
  sint32 zig = 4;
  sint64 zag = 5;
  bool paid = 6;
  double price = 7;
  float rate = 8;
  bytes raw = 9;
  Kind kind = 10;
  repeated int32 counts = 11;
  repeated string tags = 12;
  map<string, int64> stock = 13;
  map<int32, Order> parts = 14;
  Order child = 15;
  repeated Order children = 16;
  oneof choice { string text = 17; int32 number = 18; Order other = 19; }
  fixed32 f32 = 20;
  sfixed64 sf64 = 21;
  int32 small = 22;
  optional int32 maybe = 23;
  repeated Kind kinds = 24;
  google.protobuf.Timestamp at = 30;
  google.protobuf.Duration lasts = 31;
  google.protobuf.Struct data = 32;
  google.protobuf.StringValue name = 33;
  google.protobuf.FieldMask mask = 34;
  google.protobuf.Any any = 35;
  google.protobuf.Int64Value count = 36;
}
`);
const types = parseDescriptorSet(descriptorSet);

function roundTrip(value: object): unknown {
  return JSON.parse(JSON.stringify(protoToJson(types, 'shop.Order', encode('shop.Order', value))));
}

const cases: readonly (readonly [what: string, value: object, expected: object])[] = [
  ['an empty message', {}, {}],
  ['names in camel case', { order_id: 'a' }, { orderId: 'a' }],
  [
    'zeros of proto3 as absent',
    { order_id: '', amount: 0, paid: false, kind: 0, price: 0, raw: Buffer.alloc(0) },
    {},
  ],
  [
    '64-bit numbers as text',
    { amount: '-9007199254740993', big: '18446744073709551615' },
    { amount: '-9007199254740993', big: '18446744073709551615' },
  ],
  ['negative numbers in zigzag', { zig: -3, zag: '-12345678901' }, { zig: -3, zag: '-12345678901' }],
  ['negative numbers of 32 bits', { small: -1 }, { small: -1 }],
  ['fixed numbers', { f32: 4294967295, sf64: '-2' }, { f32: 4294967295, sf64: '-2' }],
  ['floats as short as they can be', { price: 0.1, rate: 0.1 }, { price: 0.1, rate: 0.1 }],
  [
    'numbers that JSON lacks as text',
    { price: Number.NaN, rate: Number.NEGATIVE_INFINITY },
    { price: 'NaN', rate: '-Infinity' },
  ],
  ['bytes in base64', { raw: Buffer.from([0xfb, 0xff]) }, { raw: '+/8=' }],
  [
    'enums by name, unknown ones by number',
    { kind: 1, kinds: [0, 1, 7] },
    { kind: 'KIND_BOOK', kinds: ['KIND_UNKNOWN', 'KIND_BOOK', 7] },
  ],
  ['lists', { counts: [1, 0, -1], tags: ['a', ''] }, { counts: [1, 0, -1], tags: ['a', ''] }],
  [
    'maps',
    { stock: { a: 1, '': 0 }, parts: { '-1': { paid: true }, 2: {} } },
    { stock: { a: '1', '': '0' }, parts: { '-1': { paid: true }, 2: {} } },
  ],
  [
    'messages in messages',
    { child: {}, children: [{}, { paid: true }] },
    { child: {}, children: [{}, { paid: true }] },
  ],
  ['a oneof at zero', { number: 0 }, { number: 0 }],
  ['a message in a oneof', { other: {} }, { other: {} }],
  ['times', { at: { seconds: 1_780_000_000, nanos: 120_000_000 } }, { at: '2026-05-28T20:26:40.120Z' }],
  ['a time with billionths', { at: { seconds: 0, nanos: 1 } }, { at: '1970-01-01T00:00:00.000000001Z' }],
  ['durations', { lasts: { seconds: -3, nanos: -500_000_000 } }, { lasts: '-3.500s' }],
  [
    'structs as plain JSON',
    {
      data: {
        fields: {
          a: { listValue: { values: [{ nullValue: 0 }, { boolValue: false }] } },
          n: { numberValue: 2 },
        },
      },
    },
    { data: { a: [null, false], n: 2 } },
  ],
  ['wrappers as what they hold', { name: { value: '' }, count: { value: 7 } }, { name: '', count: '7' }],
  ['field masks', { mask: { paths: ['order_id', 'child.at'] } }, { mask: 'orderId,child.at' }],
  [
    'an Any by its type',
    { any: { type_url: 'type.googleapis.com/shop.Order', value: encode('shop.Order', { paid: true }) } },
    { any: { '@type': 'type.googleapis.com/shop.Order', paid: true } },
  ],
];
for (const [what, value, expected] of cases) {
  test(`reads ${what}`, () => assert.deepEqual(roundTrip(value), expected));
}

test('of several members of a oneof the last counts', () => {
  const bytes = Buffer.concat([encode('shop.Order', { text: 'a' }), encode('shop.Order', { number: 5 })]);
  assert.deepEqual({ ...(protoToJson(types, 'shop.Order', bytes) as object) }, { number: 5 });
});

test('parts of one message are merged', () => {
  const bytes = Buffer.concat([
    encode('shop.Order', { child: { paid: true } }),
    encode('shop.Order', { child: { order_id: 'x' } }),
  ]);
  assert.deepEqual(JSON.parse(JSON.stringify(protoToJson(types, 'shop.Order', bytes))), {
    child: { paid: true, orderId: 'x' },
  });
});

test('a key named __proto__ is a key', () => {
  const map = protoToJson(types, 'shop.Order', Buffer.from('6a0d0a095f5f70726f746f5f5f1001', 'hex'));
  assert.equal(JSON.stringify(map), '{"stock":{"__proto__":"1"}}');
});

for (const [what, value] of [
  ...['a__b', 'fooBar', 'a_1', 'a_'].map((path) => [
    `the path ${path} in a field mask`,
    { mask: { paths: [path] } },
  ]),
  ['an Any with a value but no type', { any: { value: Buffer.from('a') } }],
] as [string, object][]) {
  test(`refuses ${what}, which has no JSON form`, () => {
    assert.throws(() => roundTrip(value), MalformedError);
  });
}

for (const [what, hex, error] of [
  ['breaks off in a number', '10', MalformedError],
  ['breaks off in a text', '0a05', MalformedError],
  ['has field number zero', '00', MalformedError],
  ['has text that is not UTF-8', '0a01ff', MalformedError],
  ['has an end of a group alone', '0c', MalformedError],
  ['has groups nested without end', '4b'.repeat(200), LimitError],
  ['has a time out of range', 'f2010610ffffffff07', MalformedError],
] as const) {
  test(`refuses a message that ${what}`, () => {
    assert.throws(() => protoToJson(types, 'shop.Order', Buffer.from(hex, 'hex')), error);
  });
}

test('a message nested without end, or with values without number, is refused', () => {
  let nested = Buffer.alloc(0);
  for (let i = 0; i < 150; i++) nested = Buffer.concat([Buffer.from([0x7a]), length(nested.length), nested]);
  assert.throws(() => protoToJson(types, 'shop.Order', nested), LimitError);
  const many = Buffer.alloc(200_000, Buffer.from([0x58, 1]));
  assert.equal((protoToJson(types, 'shop.Order', many) as { counts: number[] }).counts.length, 100_000);
  assert.throws(() => protoToJson(types, 'shop.Order', Buffer.concat([many, many])), LimitError);
  const packed = Buffer.concat([Buffer.from([0x5a]), length(200_000), Buffer.alloc(200_000, 1)]);
  assert.throws(() => protoToJson(types, 'shop.Order', packed), LimitError);
});

function length(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 0x7f) | 0x80);
  }
}

test('whatever the bytes, a message or a descriptor set is read or refused by an AppError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(descriptorSet.length - 1), (bytes, at) => {
      const damaged = Buffer.from(descriptorSet);
      damaged.set(bytes.subarray(0, damaged.length - at), at);
      for (const read of [
        () => JSON.stringify(protoToJson(types, 'shop.Order', Buffer.from(bytes))),
        () => parseDescriptorSet(Buffer.from(bytes)),
        () => parseDescriptorSet(damaged),
      ]) {
        try {
          read();
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      }
    }),
  );
});

test('a descriptor set without what it imports is refused, naming it', () => {
  const { descriptorSet: alone } = compileProto('syntax = "proto3"; package a; message M { string s = 1; }');
  assert.ok(parseDescriptorSet(alone).messages.has('a.M'));
  const file = Buffer.from('0a1e220a0a014d12051801220158', 'hex');
  assert.throws(() => parseDescriptorSet(file), AppError);
  assert.throws(() => parseDescriptorSet(Buffer.alloc(0)), /no message types/);
});
