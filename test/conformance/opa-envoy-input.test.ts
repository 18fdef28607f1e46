import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createResponseEncoder } from '../../src/extauthz/response-encoder.ts';
import { decodeStructFields } from '../../src/extauthz/struct.ts';
import type { HeaderValueOption__Output } from '../../src/grpc/generated/envoy/config/core/v3/HeaderValueOption.ts';
import type { CheckRequest } from '../../src/grpc/generated/envoy/service/auth/v3/CheckRequest.ts';
import type { CheckResponse__Output } from '../../src/grpc/generated/envoy/service/auth/v3/CheckResponse.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import {
  answering,
  checkerWith,
  createTrust,
  neverAborted,
  onTheWire,
  type Trust,
} from '../unit/extauthz/harness.ts';

// What opa-envoy-plugin does with a CheckRequest and with a policy's answer, as tables; where this program differs on
// purpose, the case says so.

type Attributes = CheckRequest['attributes'];
type Http = NonNullable<NonNullable<NonNullable<Attributes>['request']>['http']>;

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

async function traceOf(attributes: Attributes, answer: unknown, parse = true) {
  const checker = checkerWith(trust, {
    engine: answering(answer),
    rules: { requirePeer: false },
    body: { parse, maxBytes: 1_048_576 },
  });
  return checker.check(onTheWire(attributes), neverAborted);
}

/** The input without `spiffe`, which is ours; undefined when the request is refused as malformed. */
async function inputOf(attributes: Attributes, parse = true): Promise<Record<string, unknown> | undefined> {
  const trace = await traceOf(attributes, true, parse);
  if (trace.outcome.kind === 'refused') {
    assert.equal(trace.outcome.refusal.reasonCode, 'malformed_request');
    return undefined;
  }
  const { spiffe, ...input } = JSON.parse(JSON.stringify(trace.input)) as Record<string, unknown>;
  assert.ok(spiffe !== undefined);
  return input;
}

function http(members: Http): Attributes {
  return { request: { http: members } };
}

describe('the input document', () => {
  const documents: readonly Readonly<{
    what: string;
    attributes: Attributes;
    expected: Record<string, unknown>;
  }>[] = [
    {
      what: 'an empty CheckRequest',
      attributes: null,
      expected: {},
    },
    {
      what: 'attributes that are set but empty',
      attributes: {},
      expected: { attributes: {} },
    },
    {
      what: 'messages that are set but empty',
      attributes: {
        source: {},
        destination: {},
        request: { http: {} },
        metadataContext: {},
        routeMetadataContext: {},
      },
      expected: {
        attributes: {
          source: {},
          destination: {},
          request: { http: {} },
          metadataContext: {},
          routeMetadataContext: {},
        },
      },
    },
    {
      what: 'a TCP connection',
      attributes: {
        source: {
          address: { socketAddress: { address: '10.0.0.1', portValue: 1234 } },
          principal: 'spiffe://example.org/a',
        },
        destination: {
          address: { socketAddress: { address: '10.0.0.2', portValue: 5432 } },
          service: 'db.example.org',
        },
        tlsSession: { sni: 'db.example.org' },
      },
      expected: {
        attributes: {
          source: {
            address: { socketAddress: { address: '10.0.0.1', portValue: 1234 } },
            principal: 'spiffe://example.org/a',
          },
          destination: {
            address: { socketAddress: { address: '10.0.0.2', portValue: 5432 } },
            service: 'db.example.org',
          },
          tlsSession: { sni: 'db.example.org' },
        },
        source_principal: 'spiffe://example.org/a',
      },
    },
    {
      what: 'scalars of proto3 that are zero, and a port of zero in its oneof',
      attributes: {
        source: {
          address: { socketAddress: { protocol: 'TCP', address: '', portValue: 0, ipv4Compat: false } },
        },
        request: { time: { seconds: 0, nanos: 0 }, http: { size: 0, method: '' } },
      },
      expected: {
        attributes: {
          source: { address: { socketAddress: { portValue: 0 } } },
          request: { time: {}, http: {} },
        },
      },
    },
    {
      what: 'enums as numbers',
      attributes: {
        source: { address: { socketAddress: { protocol: 'UDP', address: 'a', namedPort: 'dns' } } },
      },
      expected: {
        attributes: {
          source: { address: { socketAddress: { protocol: 1, address: 'a', namedPort: 'dns' } } },
        },
      },
    },
    {
      what: 'every member of a socket address',
      attributes: {
        source: {
          address: { socketAddress: { address: 'a', portValue: 1, resolverName: 'r', ipv4Compat: true } },
        },
      },
      expected: {
        attributes: {
          source: {
            address: { socketAddress: { address: 'a', portValue: 1, resolverName: 'r', ipv4Compat: true } },
          },
        },
      },
    },
    {
      what: 'a pipe',
      attributes: { source: { address: { pipe: { path: '/run/x.sock', mode: 0o600 } } } },
      expected: { attributes: { source: { address: { pipe: { path: '/run/x.sock', mode: 384 } } } } },
    },
    {
      what: 'an internal address',
      attributes: {
        source: { address: { envoyInternalAddress: { serverListenerName: '', endpointId: 'e' } } },
      },
      expected: {
        attributes: {
          source: { address: { envoyInternalAddress: { serverListenerName: '', endpointId: 'e' } } },
        },
      },
    },
    {
      what: 'a time as seconds and nanos',
      attributes: { request: { time: { seconds: '1780000000', nanos: 7 } } },
      expected: { attributes: { request: { time: { seconds: 1_780_000_000, nanos: 7 } } } },
    },
    {
      what: 'a size as a number',
      attributes: http({ size: '-1' }),
      expected: { attributes: { request: { http: { size: -1 } } } },
    },
    {
      what: 'bytes as base64',
      attributes: http({ rawBody: Buffer.from([0xfb, 0xff]) }),
      expected: { attributes: { request: { http: { rawBody: '+/8=' } } } },
    },
    {
      what: 'labels and context extensions',
      attributes: { source: { labels: { app: 'web' } }, contextExtensions: { api: 'balances' } },
      expected: {
        attributes: { source: { labels: { app: 'web' } }, contextExtensions: { api: 'balances' } },
      },
    },
    {
      what: 'filter metadata as plain JSON and typed metadata as type and base64',
      attributes: {
        metadataContext: {
          filterMetadata: {
            f: { fields: { n: { numberValue: 2 }, l: { listValue: { values: [{ boolValue: true }] } } } },
          },
          typedFilterMetadata: { t: { type_url: 'type.example/x', value: Buffer.from('a') } },
        },
        routeMetadataContext: { filterMetadata: { r: { fields: {} } } },
      },
      expected: {
        attributes: {
          metadataContext: {
            filterMetadata: { f: { n: 2, l: [true] } },
            typedFilterMetadata: { t: { typeUrl: 'type.example/x', value: 'YQ==' } },
          },
          routeMetadataContext: { filterMetadata: { r: {} } },
        },
      },
    },
    {
      what: 'a principal that is no SPIFFE ID',
      attributes: { source: { principal: 'CN=web' } },
      expected: { attributes: { source: { principal: 'CN=web' } }, source_principal: 'CN=web' },
    },
    {
      what: 'headers as they came, pseudo headers included',
      attributes: http({ headers: { ':path': '/', 'x-a': '1,2', 'x-empty': '' } }),
      expected: {
        attributes: { request: { http: { headers: { ':path': '/', 'x-a': '1,2', 'x-empty': '' } } } },
      },
    },
    {
      what: 'raw headers; here `headers` is made from them, so that policies on it keep working',
      attributes: http({
        headerMap: {
          headers: [
            { key: 'x-a', rawValue: Buffer.from('1') },
            { key: 'x-a', value: '2' },
          ],
        },
      }),
      expected: {
        attributes: {
          request: {
            http: {
              headers: { 'x-a': '1,2' },
              headerMap: {
                headers: [
                  { key: 'x-a', rawValue: 'MQ==' },
                  { key: 'x-a', value: '2' },
                ],
              },
            },
          },
        },
      },
    },
  ];
  const always = {
    version: { ext_authz: 'v3', encoding: 'protojson' },
    parsed_path: [''],
    parsed_query: {},
    parsed_body: null,
    truncated_body: false,
  };
  for (const { what, attributes, expected } of documents) {
    it(`for ${what}`, async () => {
      assert.deepEqual(await inputOf(attributes), { ...always, ...expected });
    });
  }

  it('leaves parsed_body and truncated_body out when bodies are not parsed', async () => {
    const input = await inputOf(http({ body: '{', headers: { 'content-type': 'application/json' } }), false);
    assert.ok(input !== undefined && !('parsed_body' in input) && !('truncated_body' in input));
  });
});

describe('path and query', () => {
  const cases: readonly (readonly [path: string, parsedPath: string[] | undefined, parsedQuery?: object])[] =
    [
      ['/', [''], {}],
      ['/api/v1/products', ['api', 'v1', 'products'], {}],
      ['//api///v1/', ['api', '', '', 'v1', ''], {}],
      ['/a%20b/c%2Fd', ['a b', 'c', 'd'], {}],
      ['/a+b', ['a+b'], {}],
      ['/x?a=1&a=2&b=%3D', ['x'], { a: ['1', '2'], b: ['='] }],
      ['/x?a=1?b', ['x'], { a: ['1?b'] }],
      ['/x?flag&=v&&e=', ['x'], { flag: [''], '': ['v'], e: [''] }],
      ['/x?a=b+c%2Bd', ['x'], { a: ['b c+d'] }],
      ['?a=1', [''], { a: ['1'] }],
      ['/%', undefined],
      ['/%zz', undefined],
      ['/x?a=%', undefined],
      ['/x?a=1;b=2', undefined],
    ];
  for (const [path, parsedPath, parsedQuery] of cases) {
    it(`of ${path}`, async () => {
      const input = await inputOf(http({ path }));
      assert.deepEqual(input?.['parsed_path'], parsedPath);
      assert.deepEqual(input?.['parsed_query'], parsedQuery);
    });
  }
});

describe('the body', () => {
  const form = 'application/x-www-form-urlencoded';
  const multipart = 'multipart/form-data; boundary=b';
  const parts = '--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n--b--\r\n';
  const grpc = Buffer.from([0, 0, 0, 0, 0]);
  type Case = readonly [what: string, http: Http, expected: readonly [unknown, boolean] | 'malformed'];
  const cases: readonly Case[] = [
    ['without a content type', { body: '{"a":1}' }, [null, false]],
    ['of a type that is not parsed', { headers: { 'content-type': 'text/plain' }, body: 'x' }, [null, false]],
    ['of JSON', { headers: { 'content-type': 'application/json' }, body: '{"a":1}' }, [{ a: 1 }, false]],
    [
      'of JSON with a parameter',
      { headers: { 'content-type': 'application/json; charset=utf-8' }, body: '[]' },
      [[], false],
    ],
    [
      'of JSON in another case of the type',
      { headers: { 'content-type': 'Application/JSON' }, body: '{}' },
      [null, false],
    ],
    [
      'of JSON as raw bytes',
      { headers: { 'content-type': 'application/json' }, rawBody: Buffer.from('"x"') },
      ['x', false],
    ],
    [
      'of JSON in both forms: text wins',
      { headers: { 'content-type': 'application/json' }, body: '1', rawBody: Buffer.from('2') },
      [1, false],
    ],
    ['of JSON that is empty', { headers: { 'content-type': 'application/json' } }, [null, false]],
    [
      'of JSON that is null',
      { headers: { 'content-type': 'application/json' }, body: 'null' },
      [null, false],
    ],
    [
      'of JSON that breaks off',
      { headers: { 'content-type': 'application/json' }, body: '{"a":' },
      'malformed',
    ],
    [
      'of JSON with more behind it',
      { headers: { 'content-type': 'application/json' }, body: '{} {}' },
      'malformed',
    ],
    [
      'of JSON nested without end',
      { headers: { 'content-type': 'application/json' }, body: '['.repeat(100_000) },
      'malformed',
    ],
    [
      'with a longer content-length',
      { headers: { 'content-type': 'application/json', 'content-length': '9' }, body: '{}' },
      [null, true],
    ],
    [
      'with a content-length of its bytes',
      { headers: { 'content-type': 'application/json', 'content-length': '4' }, body: '"é"' },
      ['é', false],
    ],
    [
      'with a content-length of -1',
      { headers: { 'content-type': 'application/json', 'content-length': '-1' }, body: '{}' },
      [{}, false],
    ],
    [
      'with a content-length that is no number',
      { headers: { 'content-type': 'application/json', 'content-length': 'x' }, body: '{}' },
      'malformed',
    ],
    [
      'cut off by Envoy',
      { headers: { 'content-type': 'application/json', 'x-envoy-auth-partial-body': 'true' }, body: '{}' },
      [null, true],
    ],
    [
      'cut off by Envoy, of no parsed type',
      { headers: { 'x-envoy-auth-partial-body': 'true' } },
      [null, true],
    ],
    [
      'not cut off by Envoy',
      { headers: { 'content-type': 'application/json', 'x-envoy-auth-partial-body': 'false' }, body: '{}' },
      [{}, false],
    ],
    [
      'of gRPC without a descriptor',
      { path: '/a.B/C', headers: { 'content-type': 'application/grpc' }, rawBody: grpc },
      [null, false],
    ],
    [
      'of gRPC in JSON without a descriptor',
      { path: '/a.B/C', headers: { 'content-type': 'application/grpc+json' }, rawBody: grpc },
      [null, false],
    ],
    [
      'of a form',
      { headers: { 'content-type': form }, body: 'a=1&b=2&a=3+4' },
      [{ a: ['1', '3 4'], b: ['2'] }, false],
    ],
    [
      'of a form as raw bytes',
      { headers: { 'content-type': form }, rawBody: Buffer.from('a=1') },
      [{ a: ['1'] }, false],
    ],
    ['of an empty form', { headers: { 'content-type': form } }, [null, false]],
    [
      'of a form that is cut off',
      { headers: { 'content-type': form, 'content-length': '100' }, body: 'a=1' },
      [null, true],
    ],
    ['of a form with a broken escape', { headers: { 'content-type': form }, body: 'a=%4' }, 'malformed'],
    ['of a form with a semicolon', { headers: { 'content-type': form }, body: 'a=1;b=2' }, 'malformed'],
    ['of a multipart form', { headers: { 'content-type': multipart }, body: parts }, [{ f: ['v'] }, false]],
    [
      'of a multipart form with JSON in it',
      {
        headers: { 'content-type': multipart },
        body: parts.replace('\r\n\r\nv', '\r\nContent-Type: application/json\r\n\r\n[1]'),
      },
      [{ f: [[1]] }, false],
    ],
    [
      'of a multipart form without a boundary',
      { headers: { 'content-type': 'multipart/form-data' }, body: parts },
      [null, false],
    ],
    [
      'of a multipart form that breaks off',
      { headers: { 'content-type': multipart }, body: parts.slice(0, 30) },
      'malformed',
    ],
    [
      'by raw headers',
      {
        headerMap: { headers: [{ key: 'Content-Type', rawValue: Buffer.from('application/json') }] },
        body: '7',
      },
      [7, false],
    ],
  ];
  for (const [what, members, expected] of cases) {
    it(what, async () => {
      const input = await inputOf(http(members));
      if (expected === 'malformed') assert.equal(input, undefined);
      else assert.deepEqual([input?.['parsed_body'], input?.['truncated_body']], expected);
    });
  }

  it('keeps numbers exact', async () => {
    const trace = await traceOf(
      http({ headers: { 'content-type': 'application/json' }, body: '{"id":12345678901234567890}' }),
      true,
    );
    assert.ok(JSON.stringify(trace.input).includes('"parsed_body":{"id":12345678901234567890}'));
  });
});

describe('the answer', () => {
  const codec = messageCodec('envoy.service.auth.v3.CheckResponse');

  async function answerTo(
    decision: unknown,
  ): Promise<{ response: CheckResponse__Output; metadata: object; id: string }> {
    const encode = createResponseEncoder({ headerMode: 'opa_envoy_plugin', onFailure: 'deny' });
    const trace = await traceOf({}, decision);
    const response = codec.decode(encode(trace.outcome, trace.decisionId).bytes);
    const metadata = { ...decodeStructFields(response.dynamicMetadata?.fields) };
    return { response, metadata, id: trace.decisionId };
  }

  function pairs(headers: readonly HeaderValueOption__Output[]): string[] {
    return headers.map(({ header, append }) => {
      assert.equal(append, null);
      return `${header?.key}=${header?.value}`;
    });
  }

  it('to true is OK without an HTTP part', async () => {
    const { response, metadata, id } = await answerTo(true);
    assert.equal(response.status?.code, 0);
    assert.equal(response.httpResponse, undefined);
    assert.deepEqual(metadata, { decision_id: id });
  });

  it('to false is PERMISSION_DENIED; the 403 that Envoy would choose is said here', async () => {
    const { response } = await answerTo(false);
    assert.equal(response.status?.code, 7);
    assert.equal(response.deniedResponse?.status?.code, 'Forbidden');
  });

  for (const [what, headers, expected] of [
    ['an object of strings', { a: '1', b: '2' }, ['a=1', 'b=2']],
    ['an object of lists', { a: ['1', '2'] }, ['a=1', 'a=2']],
    ['a list of objects', [{ a: '1' }, { a: ['2'] }, { b: '3' }], ['a=1', 'a=2', 'b=3']],
    ['nothing', {}, []],
  ] as const) {
    it(`takes headers as ${what}`, async () => {
      const allowed = await answerTo({ allowed: true, headers, request_headers_to_remove: ['x'] });
      assert.deepEqual(pairs(allowed.response.okResponse?.headers ?? []), expected);
      const added = await answerTo({
        allowed: true,
        response_headers_to_add: headers,
        request_headers_to_remove: ['x'],
      });
      assert.deepEqual(pairs(added.response.okResponse?.responseHeadersToAdd ?? []), expected);
      const denied = await answerTo({ allowed: false, headers });
      assert.deepEqual(pairs(denied.response.deniedResponse?.headers ?? []), expected);
    });
  }

  it('allows with headers and query parameters to remove and to set', async () => {
    const { response } = await answerTo({
      allowed: true,
      request_headers_to_remove: ['x-a'],
      query_parameters_to_remove: ['q'],
      query_parameters_to_set: { p: ['1', '2'], r: '3' },
    });
    assert.deepEqual(response.okResponse?.headersToRemove, ['x-a']);
    assert.deepEqual(response.okResponse?.queryParametersToRemove, ['q']);
    assert.deepEqual(response.okResponse?.queryParametersToSet, [
      { key: 'p', value: '1' },
      { key: 'p', value: '2' },
      { key: 'r', value: '3' },
    ]);
  });

  it('denies with body and status', async () => {
    const { response } = await answerTo({ allowed: false, body: 'sorry', http_status: 429 });
    assert.equal(response.deniedResponse?.body, 'sorry');
    assert.equal(response.deniedResponse?.status?.code, 'TooManyRequests');
  });

  it('passes dynamic metadata on, with a decision ID that no policy sets', async () => {
    const { metadata, id } = await answerTo({
      allowed: true,
      dynamic_metadata: { a: 1, decision_id: 'forged' },
    });
    assert.deepEqual(metadata, { a: 1, decision_id: id });
  });

  it('does not look at keys of the other branch, nor at unknown ones', async () => {
    const allowed = await answerTo({ allowed: true, body: 7, http_status: 'x', unknown: {} });
    assert.equal(allowed.response.status?.code, 0);
    const denied = await answerTo({ allowed: false, query_parameters_to_set: 7, response_headers_to_add: 7 });
    assert.equal(denied.response.status?.code, 7);
    assert.equal(denied.response.deniedResponse?.status?.code, 'Forbidden');
  });

  // The plugin answers all of these with a gRPC error, which failure_mode_allow would let pass; here they are denials.
  for (const [what, decision, code] of [
    ['no decision', undefined, 'undefined_decision'],
    ['a string', 'true', 'malformed_decision'],
    ['a number', 1, 'malformed_decision'],
    ['a list', [true], 'malformed_decision'],
    ['null', null, 'malformed_decision'],
    ['an object without allowed', { headers: {} }, 'malformed_decision'],
    ['allowed that is no boolean', { allowed: 'true' }, 'malformed_decision'],
    ['headers that are text', { allowed: true, headers: 'a' }, 'malformed_decision'],
    ['a header that is a number', { allowed: true, headers: { a: 1 } }, 'malformed_decision'],
    ['dynamic metadata that is a list', { allowed: true, dynamic_metadata: [] }, 'malformed_decision'],
    [
      'header names to remove that are an object',
      { allowed: true, request_headers_to_remove: {} },
      'malformed_decision',
    ],
    [
      'query parameters to set as a list of objects',
      { allowed: true, query_parameters_to_set: [{ a: 'b' }] },
      'malformed_decision',
    ],
    ['a body that is a number', { allowed: false, body: 7 }, 'malformed_decision'],
    ['a status that is text', { allowed: false, http_status: '403' }, 'malformed_decision'],
    ['a status that is no integer', { allowed: false, http_status: 403.5 }, 'malformed_decision'],
    ['a status that Envoy does not know', { allowed: false, http_status: 418 }, 'malformed_decision'],
  ] as const) {
    it(`denies ${what}`, async () => {
      const { response, metadata, id } = await answerTo(decision);
      assert.equal(response.status?.code, 7);
      assert.equal(response.deniedResponse?.status?.code, 'Forbidden');
      assert.deepEqual(metadata, { decision_id: id, reason: code, reason_code: code });
    });
  }
});
