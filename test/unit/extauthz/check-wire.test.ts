import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeCheckRequest } from '../../../src/extauthz/check-request.ts';
import { boundCheckRequest } from '../../../src/extauthz/check-wire.ts';
import type { CheckRequest as WireCheckRequest } from '../../../src/grpc/generated/envoy/service/auth/v3/CheckRequest.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';

type Attributes = NonNullable<WireCheckRequest['attributes']>;
const codec = messageCodec('envoy.service.auth.v3.CheckRequest');
const filler = 'x'.repeat(40_000);

function many<T>(value: T): T[] {
  return Array.from({ length: 33_000 }, () => value);
}

/** A length-delimited field of up to 2 MiB. */
function field(number: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content as string);
  const size = [(bytes.length & 0x7f) | 0x80, ((bytes.length >> 7) & 0x7f) | 0x80, bytes.length >> 14];
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...size]), bytes]);
}

const table = Object.fromEntries(many('').map((value, index) => [`k${index}`, value]));

/** One for each place where a message can stand over and over. */
const floods: Readonly<Record<string, Attributes>> = {
  'labels of the source': { source: { labels: table } },
  'labels of the destination': { destination: { labels: table } },
  headers: { request: { http: { headers: table } } },
  header_map: { request: { http: { headerMap: { headers: many({}) } } } },
  'context extensions': { contextExtensions: table },
  'fields of metadata': {
    metadataContext: {
      filterMetadata: { a: { fields: Object.fromEntries(Object.keys(table).map((key) => [key, {}])) } },
    },
  },
  'lists in metadata': {
    routeMetadataContext: {
      filterMetadata: { a: { fields: { l: { listValue: { values: many({ listValue: {} }) } } } } },
    },
  },
  'namespaces of metadata': {
    metadataContext: { filterMetadata: Object.fromEntries(Object.keys(table).map((key) => [key, {}])) },
  },
  'typed metadata': {
    metadataContext: {
      typedFilterMetadata: Object.fromEntries(
        Object.keys(table).map((key) => [key, { type_url: 'a', value: '' }]),
      ),
    },
  },
};

for (const [what, attributes] of Object.entries(floods)) {
  test(`tens of thousands of ${what} are refused before they are decoded`, () => {
    assert.throws(() => boundCheckRequest(codec.encode({ attributes })), LimitError);
  });
}

test('fields that nobody knows count too, and so do parts of a group', () => {
  for (const part of ['7a00', '7b7c', '7d00000000', '7900000000000000007800'])
    assert.throws(() => boundCheckRequest(Buffer.from(part.repeat(33_000), 'hex')), LimitError, part);
  assert.throws(() => boundCheckRequest(Buffer.from(`7b${'7800'.repeat(33_000)}7c`, 'hex')), LimitError);
});

test('groups and messages that are nested without end are refused', () => {
  assert.throws(() => boundCheckRequest(Buffer.alloc(100_000, 0x7b)), LimitError);
  // Lists in a value of metadata_context.
  let value = field(3, filler);
  for (let depth = 0; depth < 60; depth++) value = field(6, field(1, value));
  const metadata = field(1, Buffer.concat([field(1, 'a'), field(2, field(1, field(2, value)))]));
  assert.throws(() => boundCheckRequest(field(1, field(11, metadata))), LimitError);
});

test('a field of another type than its own cannot hide what follows it', () => {
  // `service` of the source, a text, as a number: a decoder that takes it for a length passes over what is counted here.
  const hidden = Buffer.concat([Buffer.from([0x10, 0x04, 0x7a, 0xff, 0xff, 0x7f]), Buffer.from(filler)]);
  assert.throws(() => boundCheckRequest(field(1, field(1, hidden))), MalformedError);
});

test('what Envoy may send is never refused: two thousand headers in both forms, extensions and metadata', () => {
  const two = Object.fromEntries(Object.entries(table).slice(0, 2_000));
  const attributes: Attributes = {
    source: { principal: 'spiffe://a/b', certificate: filler, address: { socketAddress: { portValue: 1 } } },
    request: {
      time: { seconds: '-1', nanos: -1 },
      http: {
        size: '-9223372036854775808',
        headers: two,
        headerMap: { headers: Object.keys(two).map((key) => ({ key, rawValue: Buffer.from('v') })) },
        body: filler,
      },
    },
    contextExtensions: two,
    metadataContext: { filterMetadata: { a: { fields: { n: { numberValue: 1 }, z: { nullValue: 0 } } } } },
    tlsSession: { sni: 'a' },
  };
  boundCheckRequest(codec.encode({ attributes }));
});

test('any CheckRequest passes that is one, and whatever passes is decoded or refused with an AppError', () => {
  const text = fc.string({ maxLength: 20 });
  const strings = fc.dictionary(text, text, { maxKeys: 4 });
  const struct = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.record({ stringValue: text }),
      fc.record({ numberValue: fc.double() }),
      fc.record({ boolValue: fc.boolean() }),
      fc.record({ nullValue: fc.constant(0) }),
      fc.record({ listValue: fc.record({ values: fc.array(tie('value'), { maxLength: 3 }) }) }),
      fc.record({ structValue: fc.record({ fields: fc.dictionary(text, tie('value'), { maxKeys: 3 }) }) }),
    ),
  })).value;
  const end = fc.record({
    principal: text,
    service: text,
    labels: strings,
    address: fc.oneof(
      fc.record({
        socketAddress: fc.record({ address: text, portValue: fc.nat(), protocol: fc.constant(1) }),
      }),
      fc.record({ pipe: fc.record({ path: text, mode: fc.nat() }) }),
      fc.record({ envoyInternalAddress: fc.record({ serverListenerName: text }) }),
    ),
  });
  const requests = fc.record({
    source: end,
    destination: end,
    request: fc.record({
      time: fc.record({
        seconds: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
        nanos: fc.integer(),
      }),
      http: fc.record({ method: text, path: text, headers: strings, body: fc.constant(filler) }),
    }),
    contextExtensions: strings,
    metadataContext: fc.record({
      filterMetadata: fc.dictionary(text, fc.record({ fields: fc.dictionary(text, struct) })),
    }),
  });
  const change = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.boolean() });
  fc.assert(
    fc.property(requests, fc.array(change, { maxLength: 3 }), (attributes, changes) => {
      const bytes = codec.encode({ attributes: attributes as Attributes });
      boundCheckRequest(bytes);
      let changed = bytes;
      for (const { at, byte, cut } of changes) {
        const place = at % changed.length;
        changed = cut
          ? Buffer.concat([changed.subarray(0, place), changed.subarray(place + 1)])
          : Buffer.from(changed);
        if (!cut) changed[place] = byte;
      }
      try {
        boundCheckRequest(changed);
        decodeCheckRequest(codec.decode(changed));
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 300 },
  );
});
