import type { CheckRequest } from '../../src/grpc/generated/envoy/service/auth/v3/CheckRequest.ts';

// What opa-envoy-plugin does with a CheckRequest and with a policy's answer, as tables. They are run with a stub for the
// engine, and with the real ones; where this program differs on purpose, the case says so.

export type Attributes = CheckRequest['attributes'];
export type Http = NonNullable<NonNullable<NonNullable<Attributes>['request']>['http']>;

export function http(members: Http): Attributes {
  return { request: { http: members } };
}

/** What the input always has, unless the case says otherwise. */
export const always = {
  version: { ext_authz: 'v3', encoding: 'protojson' },
  parsed_path: [''],
  parsed_query: {},
  parsed_body: null,
  truncated_body: false,
};

/** A CheckRequest and the input document that is made of it. */
export const documents: readonly Readonly<{
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
/** A path and what is parsed of it; undefined when the request is malformed. */
export const paths: readonly (readonly [
  path: string,
  parsedPath: string[] | undefined,
  parsedQuery?: object,
])[] = [
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
const form = 'application/x-www-form-urlencoded';
const multipart = 'multipart/form-data; boundary=b';
const parts = '--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n--b--\r\n';
const grpc = Buffer.from([0, 0, 0, 0, 0]);
/** A body, and parsed_body with truncated_body. */
export type BodyCase = readonly [
  what: string,
  http: Http,
  expected: readonly [unknown, boolean] | 'malformed',
];
export const bodies: readonly BodyCase[] = [
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
  ['of JSON that is null', { headers: { 'content-type': 'application/json' }, body: 'null' }, [null, false]],
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
  ['cut off by Envoy, of no parsed type', { headers: { 'x-envoy-auth-partial-body': 'true' } }, [null, true]],
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
    'of a multipart form with text behind its last boundary',
    { headers: { 'content-type': multipart }, body: parts.replace('--b--', '--b--x') },
    'malformed',
  ],
  [
    'of a multipart form with a file beside, epilogue and preamble',
    {
      headers: { 'content-type': multipart },
      body: `x\r\n${parts.replace('--b--', '--b\r\nContent-Disposition: form-data; name="g"; filename="n"\r\n\r\nw\r\n--b--')}y`,
    },
    [{ f: ['v'], g: ['w'] }, false],
  ],
  [
    'of a multipart form with a name that only some would decode',
    { headers: { 'content-type': multipart }, body: parts.replace('name="f"', "name*=utf-8''f") },
    'malformed',
  ],
  [
    'of a multipart form with an encoding that only some would decode',
    {
      headers: { 'content-type': multipart },
      body: parts.replace('\r\n\r\nv', '\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=76'),
    },
    'malformed',
  ],
  [
    'of JSON whose keys are escaped or equal',
    {
      headers: { 'content-type': 'application/json' },
      body: '[{"x":1,"\\\\u006":2},{"x":1,"\\u0061dmin":true,"y":1,"\\u0079":2}]',
    },
    [
      [
        { x: 1, '\\u006': 2 },
        { x: 1, admin: true, y: 2 },
      ],
      false,
    ],
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
/** Headers of a decision, and the names and values on the wire. */
export const headerForms = [
  ['an object of strings', { a: '1', b: '2' }, ['a=1', 'b=2']],
  ['an object of lists', { a: ['1', '2'] }, ['a=1', 'a=2']],
  ['a list of objects', [{ a: '1' }, { a: ['2'] }, { b: '3' }], ['a=1', 'a=2', 'b=3']],
  ['nothing', {}, []],
] as const;
/** The plugin answers all of these with a gRPC error, which failure_mode_allow would let pass; here they are denials. */
export const unreadable = [
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
] as const;

/** A decision and what goes out; what is not named is empty. */
export const answers: readonly Readonly<{
  what: string;
  decision: unknown;
  expected: Readonly<Record<string, unknown>>;
}>[] = [
  { what: 'true', decision: true, expected: { code: 0, http: undefined } },
  {
    what: 'false; the 403 that Envoy would choose is said here',
    decision: false,
    expected: {
      code: 7,
      http: 'deniedResponse',
      status: 'Forbidden',
      metadata: { reason: 'policy_denied', reason_code: 'policy_denied' },
    },
  },
  {
    what: 'an object that allows and changes nothing; no HTTP part is said, which Envoy reads alike',
    decision: { allowed: true },
    expected: { code: 0, http: undefined },
  },
  {
    what: 'an object with every change of a request',
    decision: {
      allowed: true,
      headers: { 'X-Mixed-Case': '1' },
      response_headers_to_add: { r: ['1', '2'] },
      request_headers_to_remove: ['x-a', 'x-b'],
      query_parameters_to_remove: ['q'],
      query_parameters_to_set: { p: ['1', '2'], r: '3' },
    },
    expected: {
      code: 0,
      http: 'okResponse',
      headers: ['X-Mixed-Case=1'],
      added: ['r=1', 'r=2'],
      removed: ['x-a', 'x-b'],
      query: ['p=1', 'p=2', 'r=3'],
      queryRemoved: ['q'],
    },
  },
  {
    what: 'a denial with all that it can have',
    decision: { allowed: false, headers: { location: '/login' }, body: 'sorry', http_status: 302 },
    expected: {
      code: 7,
      http: 'deniedResponse',
      headers: ['location=/login'],
      status: 'Found',
      body: 'sorry',
      metadata: { reason: 'policy_denied', reason_code: 'policy_denied' },
    },
  },
  {
    what: 'an allow with metadata, whose decision_id no policy sets',
    decision: { allowed: true, dynamic_metadata: { n: 1.5, l: [null, { a: 'b' }], decision_id: 'forged' } },
    expected: { code: 0, http: undefined, metadata: { n: 1.5, l: [null, { a: 'b' }] } },
  },
  {
    what: 'a denial with metadata',
    decision: { allowed: false, dynamic_metadata: { team: 'a' } },
    expected: {
      code: 7,
      http: 'deniedResponse',
      status: 'Forbidden',
      metadata: { team: 'a', reason: 'policy_denied', reason_code: 'policy_denied' },
    },
  },
  {
    what: 'an allow with broken keys of a denial, and unknown ones',
    decision: { allowed: true, body: 7, http_status: 'x', unknown: {} },
    expected: { code: 0, http: undefined },
  },
  {
    what: 'a denial with broken keys of an allow',
    decision: {
      allowed: false,
      query_parameters_to_set: 7,
      query_parameters_to_remove: 7,
      response_headers_to_add: 7,
      request_headers_to_remove: 7,
    },
    expected: {
      code: 7,
      http: 'deniedResponse',
      status: 'Forbidden',
      metadata: { reason: 'policy_denied', reason_code: 'policy_denied' },
    },
  },
  {
    what: 'allow with a reason, which is ours',
    decision: { allow: false, reason: 'not today' },
    expected: {
      code: 7,
      http: 'deniedResponse',
      status: 'Forbidden',
      metadata: { reason: 'not today', reason_code: 'policy_denied' },
    },
  },
  {
    what: 'both keys when they agree',
    decision: { allow: true, allowed: true },
    expected: { code: 0, http: undefined },
  },
  {
    what: 'both keys when they disagree',
    decision: { allow: true, allowed: false },
    expected: {
      code: 7,
      http: 'deniedResponse',
      status: 'Forbidden',
      metadata: { reason: 'conflicting_decision', reason_code: 'conflicting_decision' },
    },
  },
];

type OverwrittenCase = readonly [
  what: string,
  headers: unknown,
  expected: readonly (readonly [pair: string, append: boolean, action: string, keepEmpty: boolean])[],
];

const overwrite = 'OVERWRITE_IF_EXISTS_OR_ADD';
const add = 'APPEND_IF_EXISTS_OR_ADD';

/** Request headers in the default mode, in which no Envoy lets a header of the client's survive beside them. */
export const overwritten: readonly OverwrittenCase[] = [
  ['a header replaces that of the client', { a: '1' }, [['a=1', false, overwrite, false]]],
  [
    'further values of a header go behind its first',
    { a: ['1', '2', '3'], b: '1' },
    [
      ['a=1', false, overwrite, false],
      ['a=2', true, add, false],
      ['a=3', true, add, false],
      ['b=1', false, overwrite, false],
    ],
  ],
  [
    'names of headers have no case',
    [{ 'X-A': '1' }, { 'x-a': '2' }],
    [
      ['X-A=1', false, overwrite, false],
      ['x-a=2', true, add, false],
    ],
  ],
  ['an empty value still replaces that of the client', { a: '' }, [['a=', false, overwrite, true]]],
];

/** What Envoy and Go's net/http both know as a status is sent, anything else is a malformed decision. */
export const statuses: readonly (readonly [status: number, accepted: boolean])[] = [
  ...[100, 200, 201, 208, 226, 300, 305, 307, 308, 400, 401, 403, 404, 417, 421, 424].map(accept),
  ...[426, 428, 429, 431, 500, 503, 508, 510, 511].map(accept),
  ...[-1, 0, 1, 99, 101, 103, 209, 299, 306, 309, 418, 425, 427, 430, 451, 509, 512, 599, 9999].map(refuse),
];

function accept(status: number): readonly [number, boolean] {
  return [status, true];
}

function refuse(status: number): readonly [number, boolean] {
  return [status, false];
}
