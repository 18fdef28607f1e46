import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeCheckRequest } from '../../../src/extauthz/check-request.ts';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { onTheWire, tcpConnection } from './harness.ts';

function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

test('only populated members are kept, and set but empty messages', () => {
  const { attributes } = decodeCheckRequest(
    onTheWire({
      source: {},
      request: { http: { method: 'GET', size: 0 } },
      metadataContext: {},
      tlsSession: {},
    }),
  );
  assert.deepEqual(plain(attributes), {
    source: {},
    request: { http: { method: 'GET' } },
    metadataContext: {},
    tlsSession: {},
  });
});

test('an empty CheckRequest has no attributes', () => {
  assert.equal(decodeCheckRequest(onTheWire(null)).attributes, undefined);
});

test('a TCP connection has no request and no headers', () => {
  const { attributes, headers } = decodeCheckRequest(onTheWire(tcpConnection()));
  assert.equal(attributes?.request, undefined);
  assert.deepEqual(Object.keys(headers), []);
});

test('a port of zero is present, because it is a oneof member', () => {
  const { attributes } = decodeCheckRequest(
    onTheWire({ source: { address: { socketAddress: { address: '::1', portValue: 0 } } } }),
  );
  assert.deepEqual(plain(attributes?.source?.address), { socketAddress: { address: '::1', portValue: 0 } });
});

test('every kind of address is kept', () => {
  const { attributes } = decodeCheckRequest(
    onTheWire({
      source: { address: { pipe: { path: '/run/a.sock', mode: 384 } } },
      destination: { address: { envoyInternalAddress: { serverListenerName: 'inner', endpointId: 'e' } } },
    }),
  );
  assert.deepEqual(plain(attributes?.source?.address), { pipe: { path: '/run/a.sock', mode: 384 } });
  assert.deepEqual(plain(attributes?.destination?.address), {
    envoyInternalAddress: { serverListenerName: 'inner', endpointId: 'e' },
  });
});

test('a UDP protocol is its number and TCP is absent', () => {
  for (const [protocol, expected] of [
    ['UDP', { address: 'a', protocol: 1, portValue: 1 }],
    ['TCP', { address: 'a', portValue: 1 }],
  ] as const) {
    const { attributes } = decodeCheckRequest(
      onTheWire({ source: { address: { socketAddress: { protocol, address: 'a', portValue: 1 } } } }),
    );
    assert.deepEqual(plain(attributes?.source?.address?.socketAddress), expected);
  }
});

test('sizes and times beyond the safe integers stay exact', () => {
  const late = decodeCheckRequest(onTheWire({ request: { time: { seconds: '9223372036854775807' } } }));
  assert.equal(JSON.stringify(late.attributes?.request), '{"time":{"seconds":9223372036854775807}}');
  const { attributes } = decodeCheckRequest(onTheWire({ request: { http: { size: '9007199254740993' } } }));
  assert.equal(JSON.stringify(attributes?.request?.http), '{"size":9007199254740993}');
  const negative = decodeCheckRequest(onTheWire({ request: { http: { size: '-1' } } }));
  assert.equal(negative.attributes?.request?.http?.size, -1);
});

test('metadata is plain JSON', () => {
  const { attributes } = decodeCheckRequest(
    onTheWire({
      metadataContext: {
        filterMetadata: {
          ns: {
            fields: {
              s: { stringValue: '' },
              n: { numberValue: 0 },
              b: { boolValue: false },
              z: { nullValue: 'NULL_VALUE' },
              l: { listValue: { values: [{ numberValue: 1.5 }, { listValue: { values: [] } }] } },
              o: { structValue: { fields: { k: { stringValue: 'v' } } } },
            },
          },
        },
        typedFilterMetadata: { t: { type_url: 'x/y', value: Buffer.from([1]) } },
      },
    }),
  );
  assert.deepEqual(plain(attributes?.metadataContext?.filterMetadata), {
    ns: { s: '', n: 0, b: false, z: null, l: [1.5, []], o: { k: 'v' } },
  });
  assert.deepEqual(attributes?.metadataContext?.typedFilterMetadata?.['t'], {
    typeUrl: 'x/y',
    value: Buffer.from([1]),
  });
});

test('members of the wrong type are malformed', () => {
  const wrong: unknown[] = [
    null,
    7,
    'text',
    [],
    { attributes: 'x' },
    { attributes: [] },
    { attributes: { source: 'x' } },
    { attributes: { source: { principal: 7 } } },
    { attributes: { source: { address: { socketAddress: { portValue: 'many' } } } } },
    { attributes: { request: { http: { headers: { a: 1 } } } } },
    { attributes: { request: { http: { headers: [] } } } },
    { attributes: { request: { http: { rawBody: 'text' } } } },
    { attributes: { request: { http: { size: '1e3' } } } },
    { attributes: { request: { http: { headerMap: { headers: {} } } } } },
    { attributes: { contextExtensions: { a: {} } } },
    { attributes: { metadataContext: { filterMetadata: { ns: 'x' } } } },
  ];
  for (const message of wrong) assert.throws(() => decodeCheckRequest(message), MalformedError);
});

test('what is too much is refused', () => {
  const headers = Object.fromEntries(Array.from({ length: 2_001 }, (_, i) => [`h${i}`, '']));
  const tooMuch: unknown[] = [
    { attributes: { request: { http: { headers } } } },
    { attributes: { source: { principal: 'x'.repeat(8_193) } } },
    { attributes: { source: { certificate: 'x'.repeat(65_537) } } },
    {
      attributes: {
        request: { http: { headerMap: { headers: Array.from({ length: 2_001 }, () => ({})) } } },
      },
    },
  ];
  for (const message of tooMuch) assert.throws(() => decodeCheckRequest(message), LimitError);
});

test('any object decodes or is refused with an AppError', () => {
  fc.assert(
    fc.property(fc.anything({ maxDepth: 6, withNullPrototype: true }), (value) => {
      try {
        decodeCheckRequest({ attributes: value });
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
    { numRuns: 1_000 },
  );
});

test('texts are bounded, one by one and as tables', () => {
  const long = 'x'.repeat(262_145);
  const half = 'x'.repeat(200_000);
  const headers = { a: half, b: half, c: half };
  const list = Object.entries(headers).map(([key, value]) => ({ key, value }));
  const http = (parts: object): unknown => ({ attributes: { request: { http: parts } } });
  for (const message of [
    http({ path: long }),
    http({ host: long }),
    http({ headers }),
    http({ headerMap: { headers: list } }),
    http({ headerMap: { headers: [{ rawValue: Buffer.alloc(524_289) }] } }),
    { attributes: { contextExtensions: headers } },
    { attributes: { source: { labels: { [long + long]: '' } } } },
  ])
    assert.throws(() => decodeCheckRequest(message), LimitError);
  // A body has bounds of its own.
  decodeCheckRequest(http({ body: long + long + long, path: half, headers: { a: half, b: half } }));
});

test('a transport protocol that is newer than the API here, and numbers that JSON lacks, are kept', () => {
  const k = (numberValue: number) => ({ k: { numberValue } });
  const { attributes } = decodeCheckRequest(
    onTheWire({
      source: { address: { socketAddress: { protocol: 7 as 1, portValue: 1 } } },
      metadataContext: {
        filterMetadata: { a: { fields: k(Number.NaN) }, b: { fields: k(-Infinity) }, c: { fields: k(1.5) } },
      },
    }),
  );
  assert.deepEqual(attributes?.source?.address?.socketAddress, { protocol: 7, portValue: 1 });
  assert.equal(
    JSON.stringify(attributes?.metadataContext?.filterMetadata),
    '{"a":{"k":"NaN"},"b":{"k":"-Infinity"},"c":{"k":1.5}}',
  );
});
