/** Checks that somebody made up to break or to stop the sidecar. */
import type { MessageTypes } from '../../src/grpc/messages.ts';
import { allowed } from './world.ts';

type Attributes = NonNullable<MessageTypes['envoy.service.auth.v3.CheckRequest']['in']['attributes']>;
type Http = NonNullable<NonNullable<Attributes['request']>['http']>;

/** `malformed`: 400 under whatever policy. `judged`: a policy may see it. `refused`: denied before that. */
export type HostileCase = readonly [name: string, expected: 'malformed' | 'judged' | 'refused', Attributes];

const mebibyte = 1 << 20;
/** A little less than body.max_bytes. */
const room = mebibyte - 64;

const http = { method: 'POST', path: '/', host: 'acme', scheme: 'https', protocol: 'HTTP/1.1' };

function request(parts: Partial<Http>, more: Partial<Attributes> = {}): Attributes {
  return { source: { principal: allowed }, request: { http: { ...http, ...parts } }, ...more };
}

function typed(type: string, body: string): Attributes {
  return request({ headers: { 'content-type': type }, body });
}

const json = (body: string): Attributes => typed('application/json', body);
const form = (body: string): Attributes => typed('application/x-www-form-urlencoded', body);
const multipart = (body: string): Attributes => typed('multipart/form-data; boundary=x', body);

/** As many different parts as fit into `bytes`, with `between` in between. */
function fill(part: (index: number) => string, between = ',', bytes = room): string {
  const parts: string[] = [];
  for (let length = 0, index = 0; ; index++) {
    const next = part(index);
    length += next.length + between.length;
    if (length > bytes) return parts.join(between);
    parts.push(next);
  }
}

function table(count: number, value = ''): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, value]));
}

const list = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

export function hostileCases(): readonly HostileCase[] {
  const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  return [
    ['a body of exactly the limit', 'judged', json(`"${'x'.repeat(mebibyte - 2)}"`)],
    ['a body just over the limit', 'malformed', json(`"${'x'.repeat(mebibyte - 1)}"`)],
    ['a body of no known type, nearly 4 MiB', 'judged', request({ body: '\u0001'.repeat(3.9 * mebibyte) })],
    ['raw bytes of nearly 4 MiB', 'judged', request({ rawBody: Buffer.alloc(3.9 * mebibyte, 0xff) })],
    ['JSON 100 000 levels deep', 'malformed', json('['.repeat(100_000) + ']'.repeat(100_000))],
    ['JSON that never closes', 'malformed', json('{"a":'.repeat(100_000))],
    ['JSON of empty arrays', 'malformed', json(`[${fill(() => '[]')}]`)],
    ['JSON of nested arrays', 'malformed', json(`[${fill(() => '['.repeat(500) + ']'.repeat(500))}]`)],
    ['JSON of different keys', 'malformed', json(`{${fill((i) => `"${i.toString(36)}":1`)}}`)],
    ['JSON of objects of different shapes', 'judged', json(`[${fill((i) => `{"k${i.toString(36)}":1}`)}]`)],
    ['JSON of keys that are array indexes', 'judged', json(`{${fill((i) => `"${i * 4_093}":1`)}}`)],
    [
      'JSON of prototypes',
      'judged',
      json(`[${fill(() => '{"__proto__":{"allowed":true},"constructor":1}')}]`),
    ],
    ['JSON of small numbers', 'judged', json(`[${fill(() => '1')}]`)],
    ['JSON of numbers too small for a double', 'malformed', json(`[${fill(() => '1e-400')}]`)],
    ['JSON of one huge number', 'judged', json('1'.repeat(room))],
    ['JSON of lone surrogates', 'judged', json(`"${'\\ud800'.repeat(room / 6)}"`)],
    ['JSON of quotes', 'malformed', json('"'.repeat(room))],
    ['JSON that ends in a backslash', 'malformed', json(`"${'\\'.repeat(room)}`)],
    ['JSON with a NUL', 'malformed', json('{"a":1}\u0000')],
    ['a form of a million keys', 'malformed', form('&'.repeat(room))],
    ['a form of 10 000 prototypes', 'judged', form(list(9_999, '__proto__=1').join('&'))],
    ['a form of escapes that are no UTF-8', 'judged', form('%ff'.repeat(room / 3))],
    ['a form of broken escapes', 'malformed', form('%f'.repeat(room / 2))],
    ['a multipart body of 100 000 parts', 'malformed', multipart(`--x\r\n${'\r\n--x\r\n'.repeat(100_000)}`)],
    ['a multipart body that is nearly one boundary', 'malformed', multipart('\r\n--'.repeat(room / 4))],
    ['a query of a million parameters', 'malformed', request({ path: `/?${'a&'.repeat(100_000)}` })],
    ['a path of 100 kB', 'judged', request({ path: `/${'a/'.repeat(50_000)}` })],
    ['a path of 3 MiB', 'malformed', request({ path: `/${'%ff'.repeat(mebibyte)}` })],
    ['a path with a broken escape', 'malformed', request({ path: '/%zz' })],
    [
      'NUL bytes in path, host, method and headers',
      'judged',
      request({ path: '/\0', host: '\0', method: '\0', headers: { '\0': '\0' } }),
    ],
    ['10 000 headers', 'malformed', request({ headers: table(10_000, 'v') })],
    [
      '10 000 headers in header_map',
      'malformed',
      request({ headerMap: { headers: list(10_000, { key: 'a', value: 'b' }) } }),
    ],
    [
      '2 000 headers of one name',
      'judged',
      request({ headerMap: { headers: list(2_000, { key: 'a', rawValue: Buffer.alloc(250, 0xff) }) } }),
    ],
    [
      'headers that name prototypes',
      'judged',
      request({ headers: { ['__proto__']: 'x', constructor: 'y' } }),
    ],
    ['300 000 headers', 'malformed', request({ headers: table(300_000) })],
    ['two million empty headers', 'malformed', request({ headerMap: { headers: list(1_900_000, {}) } })],
    ['300 000 context extensions', 'malformed', request({}, { contextExtensions: table(300_000) })],
    ['300 000 labels', 'malformed', { source: { principal: allowed, labels: table(300_000) } }],
    [
      'two million empty values of metadata',
      'malformed',
      request(
        {},
        {
          metadataContext: {
            filterMetadata: { a: { fields: { l: { listValue: { values: list(1_900_000, {}) } } } } },
          },
        },
      ),
    ],
    [
      '100 certificates',
      'refused',
      { source: { principal: allowed, certificate: encodeURIComponent(pem.repeat(100)) } },
    ],
    [
      'a certificate of 3 MiB',
      'malformed',
      { source: { principal: allowed, certificate: pem.repeat(50_000) } },
    ],
    [
      'a certificate of escapes',
      'refused',
      { source: { principal: allowed, certificate: '%ff'.repeat(21_000) } },
    ],
    ['a principal of 3 MiB', 'malformed', { source: { principal: `spiffe://${'a'.repeat(3 * mebibyte)}` } }],
    [
      'x-forwarded-client-cert of a quarter MiB',
      'judged',
      request({ headers: { 'x-forwarded-client-cert': `By="${'\\"'.repeat(100_000)}` } }),
    ],
    [
      'a content type of parameters',
      'malformed',
      typed(`multipart/form-data;${' a=b;'.repeat(40_000)}`, 'x'),
    ],
    [
      'trace headers of a quarter MiB',
      'judged',
      request({ headers: { traceparent: '0'.repeat(250_000), b3: '0-'.repeat(100_000) } }),
    ],
  ];
}
