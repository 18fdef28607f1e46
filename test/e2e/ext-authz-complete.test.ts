import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compileProto } from '../support/descriptors.ts';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener, type Json, plainCluster } from '../support/envoy-config.ts';
import { http, startEchoUpstream } from '../support/http.ts';
import { startOpa } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { combined, devIdentity } from './world.ts';

const policy = `package e2e

body := {"allowed": false, "body": json.marshal(input.parsed_body)}

mutate := {
	"allowed": true,
	"headers": {
		"x-user": "policy",
		"x-many": ["1", "2"],
		"x-joined": {"value": ["3", "4"], "append": true},
		"x-put": {"value": ["5", "6"], "append": false},
	},
	"request_headers_to_remove": ["x-secret"],
	"query_parameters_to_set": {"a": "2", "c": "3&e=5 #"},
	"query_parameters_to_remove": ["b"],
	"response_headers_to_add": {
		"x-added": "1",
		"x-answer": {"value": "policy", "append": false},
		"x-answers": {"value": "policy", "append": true},
	},
}

conflict := 1 if input.version

conflict := 2 if input.attributes

nothing if input.never
`;
const rules = ['body', 'mutate', 'conflict', 'nothing'] as const;

const { descriptorSet, encode } = compileProto(`
syntax = "proto3";
package shop;
message Order { string order_id = 1; int64 amount = 2; }
service Shop { rpc Buy (Order) returns (Order); }
`);

/** The route /RULE, and that of the gRPC method, whose context extensions choose the query. */
function routeTo(rule: string, path = `/${rule}`): Json {
  return {
    match: { prefix: path },
    typed_per_filter_config: {
      'envoy.filters.http.ext_authz': {
        '@type': 'type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute',
        check_settings: { context_extensions: { rule } },
      },
    },
  };
}

function send(port: number, path: string, headers: Record<string, string> = {}, body?: string | Buffer) {
  return http({ port, path, headers, ...(body === undefined ? {} : { method: 'POST', body }) });
}

function frame(message: Buffer, flag: number): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt8(flag);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
}

test('routes choose queries, bodies are parsed, changes arrive, and failures are told from denials', async (t) => {
  const descriptor = join(await tempDirectory(t), 'shop.pb');
  await writeFile(descriptor, descriptorSet);
  const opa = await startOpa(t, { over: 'unix', files: { 'policy.rego': policy } });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: {
        path: '',
        queries: rules.map((rule) => ({ match: { context: { rule } }, path: `e2e/${rule}` })),
        peer: { require: false },
        on_failure: 'error',
        body: { proto_descriptor: descriptor },
      },
      policy: { opa: { url: opa.url }, timeout: '2s' },
    },
  });
  const upstream = await startEchoUpstream(t, { 'x-answer': 'upstream', 'x-answers': 'upstream' });
  const [strict, lenient] = [await freePort(), await freePort()];
  const routes = [...rules.map((rule) => routeTo(rule)), routeTo('body', '/shop.Shop/Buy')];
  const filter = (more: Json) => [
    extAuthz({
      with_request_body: { max_request_bytes: 4096, allow_partial_message: true, pack_as_bytes: true },
      status_on_error: { code: 'BadGateway' },
      ...more,
    }),
  ];
  await startEnvoy(t, {
    config: combined(sidecar.socket, {
      listeners: [
        httpListener({ name: 'strict', port: strict, cluster: 'upstream', routes, filters: filter({}) }),
        httpListener({
          name: 'lenient',
          port: lenient,
          cluster: 'upstream',
          routes,
          filters: filter({ failure_mode_allow: true }),
        }),
      ],
      clusters: [plainCluster('upstream', upstream.port)],
    }),
  });

  const order = encode('shop.Order', { order_id: 'a', amount: 7 });
  const grpc = { 'content-type': 'application/grpc' };
  for (const [path, headers, body, expected] of [
    [
      '/body',
      { 'content-type': 'application/json' },
      '{"id":12345678901234567890}',
      '{"id":12345678901234567890}',
    ],
    ['/body', { 'content-type': 'application/x-www-form-urlencoded' }, 'a=1&a=2', '{"a":["1","2"]}'],
    ['/shop.Shop/Buy', grpc, frame(order, 0), '{"amount":"7","orderId":"a"}'],
    [
      '/shop.Shop/Buy',
      { ...grpc, 'grpc-encoding': 'gzip' },
      frame(gzipSync(order), 1),
      '{"amount":"7","orderId":"a"}',
    ],
  ] as const) {
    const { body: text, headers: answered } = await send(strict, path, headers, body);
    // To a gRPC client Envoy puts the body of a denial into grpc-message.
    const told = path === '/body' ? text : decodeURIComponent(String(answered['grpc-message']));
    assert.equal(told, expected);
  }
  assert.equal((await send(strict, '/body', { 'content-type': 'application/json' }, '{')).status, 400);
  assert.equal((await send(strict, '/elsewhere')).status, 403, 'no query is for a route without context');
  assert.equal(upstream.seen.length, 0);

  const forged = {
    'x-user': 'admin',
    'x-many': 'forged',
    'x-secret': 's',
    'x-kept': 'k',
    'x-joined': 'c',
    'x-put': 'c',
  };
  const changed = await send(strict, '/mutate?a=1&%61=1&b=2&%62=2&d=4', forged);
  assert.equal(changed.status, 200);
  assert.equal(changed.headers['x-added'], '1');
  const seen = upstream.seen.at(-1);
  const { 'x-user': user, 'x-many': many, 'x-secret': secret, 'x-kept': kept } = seen?.headers ?? {};
  assert.deepEqual([user, String(many).replaceAll(' ', ''), secret, kept], ['policy', '1,2', undefined, 'k']);
  const listed = (name: string, from = seen?.headers): string => String(from?.[name]).replaceAll(' ', '');
  assert.deepEqual(
    [listed('x-joined'), listed('x-put')],
    ['c,3,4', '5,6'],
    'only what was asked for survives',
  );
  assert.equal(listed('x-answer', changed.headers), 'policy');
  assert.equal(listed('x-answers', changed.headers), 'upstream,policy');
  const query = new URLSearchParams(seen?.path.split('?')[1]);
  query.sort();
  assert.deepEqual(
    [...query],
    [
      ['a', '2'],
      ['c', '3&e=5 #'],
      ['d', '4'],
    ],
  );

  assert.equal((await send(strict, '/conflict')).status, 502, 'an engine failure is an error of the filter');
  assert.equal((await send(strict, '/nothing')).status, 403, 'no decision is a denial');
  assert.equal((await send(lenient, '/conflict')).status, 200, 'failure_mode_allow lets failures pass');
  assert.equal((await send(lenient, '/nothing')).status, 403, 'and no denial');
  assert.equal((await send(lenient, '/body', { 'content-type': 'application/json' }, '{')).status, 400);
});
