import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildCheckResponse, type ResponseOptions } from '../../../src/extauthz/check-response.ts';
import { type Outcome, outcomeOf } from '../../../src/extauthz/outcome.ts';
import { type ReasonCode, refuse } from '../../../src/extauthz/reason.ts';
import { createResponseEncoder } from '../../../src/extauthz/response-encoder.ts';
import { decodeStructFields } from '../../../src/extauthz/struct.ts';
import type { CheckResponse__Output } from '../../../src/grpc/generated/envoy/service/auth/v3/CheckResponse.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';

const codec = messageCodec('envoy.service.auth.v3.CheckResponse');
const id = '0f0e0d0c-0b0a-4908-8706-050403020100';
const defaults: ResponseOptions = { headerMode: 'overwrite', onFailure: 'deny' };

function decided(value: unknown): Outcome {
  return outcomeOf({ kind: 'result', value });
}

/** As Envoy reads it. */
function tell(outcome: Outcome, options: Partial<ResponseOptions> = {}): CheckResponse__Output {
  return codec.decode(createResponseEncoder({ ...defaults, ...options })(outcome, id).bytes);
}

function metadataOf(response: CheckResponse__Output): Record<string, unknown> {
  return JSON.parse(JSON.stringify(decodeStructFields(response.dynamicMetadata?.fields))) as Record<
    string,
    unknown
  >;
}

function refusal(code: ReasonCode): Outcome {
  return { kind: 'refused', refusal: refuse(code, 'only for the operator') };
}

const failed: Outcome = {
  kind: 'failed',
  reasonCode: 'engine_unavailable',
  message: 'only for the operator',
};

test('an allow without more says OK and carries the decision ID', () => {
  const response = tell(decided(true));
  assert.equal(response.status?.code ?? 0, 0);
  assert.equal(response.httpResponse, undefined);
  assert.deepEqual(metadataOf(response), { decision_id: id });
});

test('a deny without more is 403 with reason and code', () => {
  const response = tell(decided(false));
  assert.equal(response.status?.code, 7);
  assert.equal(response.deniedResponse?.status?.code, 'Forbidden');
  assert.deepEqual(metadataOf(response), {
    decision_id: id,
    reason: 'policy_denied',
    reason_code: 'policy_denied',
  });
});

test("the policy's own reason is told, its code is ours", () => {
  const response = tell(
    decided({
      allow: false,
      reason: 'too late',
      dynamic_metadata: { reason: 'x', reason_code: 'y', kept: 1 },
    }),
  );
  assert.deepEqual(metadataOf(response), {
    decision_id: id,
    reason: 'too late',
    reason_code: 'policy_denied',
    kept: 1,
  });
});

test('a policy cannot set the decision ID', () => {
  for (const allowed of [true, false]) {
    const response = tell(decided({ allowed, dynamic_metadata: { decision_id: 'mine' } }));
    assert.equal(metadataOf(response)['decision_id'], id);
  }
});

test('refusals have the HTTP status of their code and keep their message inside', () => {
  const codes: [ReasonCode, string][] = [
    ['no_peer_identity', 'Forbidden'],
    ['identity_denied', 'Forbidden'],
    ['untrusted_chain', 'Forbidden'],
    ['unsafe_path', 'Forbidden'],
    ['no_query', 'Forbidden'],
    ['malformed_request', 'BadRequest'],
    ['overloaded', 'ServiceUnavailable'],
    ['not_ready', 'ServiceUnavailable'],
  ];
  for (const [code, status] of codes) {
    const response = tell(refusal(code));
    assert.equal(response.deniedResponse?.status?.code, status, code);
    assert.notEqual(response.status?.code, 0);
    assert.deepEqual(metadataOf(response), { decision_id: id, reason: code, reason_code: code });
    assert.equal(JSON.stringify(response).includes('operator'), false);
  }
});

test('an engine failure is a denial by default', () => {
  const response = tell(failed);
  assert.equal(response.status?.code, 7);
  assert.equal(response.deniedResponse?.status?.code, 'Forbidden');
  assert.equal(response.httpResponse, 'deniedResponse');
});

test('an engine failure is an error_response when so configured, and still no OK for an older Envoy', () => {
  const response = tell(failed, { onFailure: 'error' });
  assert.equal(response.httpResponse, 'errorResponse');
  assert.equal(response.status?.code, 14);
  assert.equal(metadataOf(response)['reason_code'], 'engine_unavailable');
  assert.equal(JSON.stringify(response).includes('operator'), false);
});

test('on_failure error is about the engine only', () => {
  for (const outcome of [
    decided(false),
    decided(undefined),
    refusal('malformed_request'),
    refusal('not_ready'),
  ]) {
    assert.equal(tell(outcome, { onFailure: 'error' }).httpResponse, 'deniedResponse');
  }
});

test('a lifted denial is an empty OK with the dynamic metadata of the policy', () => {
  const denied = decided({
    allowed: false,
    headers: { 'x-a': 'b' },
    body: 'no',
    dynamic_metadata: { kept: true },
  });
  assert.ok(denied.kind === 'denied');
  const response = tell({ kind: 'lifted', from: denied });
  assert.equal(response.status?.code ?? 0, 0);
  assert.equal(response.httpResponse, 'okResponse');
  assert.deepEqual(response.okResponse?.headers, []);
  assert.deepEqual(metadataOf(response), { kept: true, decision_id: id });
});

test('request headers overwrite those of the client, further values of a name are appended', () => {
  const response = tell(
    decided({ allowed: true, headers: { 'x-user': 'a', 'x-role': ['r1', 'r2'], 'X-Role': 'r3' } }),
  );
  assert.deepEqual(
    response.okResponse?.headers.map(({ header, append, appendAction }) => [
      header?.key,
      header?.value,
      append?.value,
      appendAction,
    ]),
    [
      ['x-user', 'a', false, 'OVERWRITE_IF_EXISTS_OR_ADD'],
      ['x-role', 'r1', false, 'OVERWRITE_IF_EXISTS_OR_ADD'],
      ['x-role', 'r2', true, 'APPEND_IF_EXISTS_OR_ADD'],
      ['X-Role', 'r3', true, 'APPEND_IF_EXISTS_OR_ADD'],
    ],
  );
});

test('a header says itself whether it appends, in every header mode and on the way back', () => {
  const headers = {
    'x-log': { value: ['a', 'b'], append: true },
    'x-user': { value: ['c', 'd'], append: false },
  };
  const expected = [
    ['x-log', 'a', true, 'APPEND_IF_EXISTS_OR_ADD'],
    ['x-log', 'b', true, 'APPEND_IF_EXISTS_OR_ADD'],
    ['x-user', 'c', false, 'OVERWRITE_IF_EXISTS_OR_ADD'],
    ['x-user', 'd', true, 'APPEND_IF_EXISTS_OR_ADD'],
  ];
  for (const headerMode of ['overwrite', 'opa_envoy_plugin'] as const) {
    const { okResponse } = tell(decided({ allowed: true, headers, response_headers_to_add: headers }), {
      headerMode,
    });
    for (const list of [okResponse?.headers, okResponse?.responseHeadersToAdd]) {
      assert.deepEqual(
        list?.map(({ header, append, appendAction }) => [
          header?.key,
          header?.value,
          append?.value,
          appendAction,
        ]),
        expected,
      );
    }
  }
});

test('a denial sends every value, whatever it says of appending', () => {
  const headers = { 'x-a': { value: ['1', '2'], append: false }, 'x-b': { value: '3', append: true } };
  const { deniedResponse } = tell(decided({ allowed: false, headers }));
  assert.deepEqual(
    deniedResponse?.headers.map(({ header, append }) => [header?.key, header?.value, append]),
    [
      ['x-a', '1', null],
      ['x-a', '2', null],
      ['x-b', '3', null],
    ],
  );
});

test('an empty header value also overwrites', () => {
  const response = tell(decided({ allowed: true, headers: { 'x-user': '' } }));
  assert.equal(response.okResponse?.headers[0]?.keepEmptyValue, true);
});

test('header_mode opa_envoy_plugin leaves append and append_action out', () => {
  const built = buildCheckResponse(decided({ allowed: true, headers: { a: ['1', '2'] } }), id, {
    ...defaults,
    headerMode: 'opa_envoy_plugin',
  });
  assert.deepEqual(built.okResponse?.headers, [
    { header: { key: 'a', value: '1' } },
    { header: { key: 'a', value: '2' } },
  ]);
});

test('response headers are added to what the upstream answers', () => {
  const built = buildCheckResponse(
    decided({ allowed: true, response_headers_to_add: { 'set-cookie': ['a=1', 'b=2'] } }),
    id,
    defaults,
  );
  assert.deepEqual(built.okResponse?.responseHeadersToAdd, [
    { header: { key: 'set-cookie', value: 'a=1' } },
    { header: { key: 'set-cookie', value: 'b=2' } },
  ]);
});

test('an allow passes on removals and query parameters', () => {
  const response = tell(
    decided({
      allowed: true,
      request_headers_to_remove: ['x-internal'],
      query_parameters_to_remove: ['debug'],
      query_parameters_to_set: { tenant: ['a', 'b'] },
    }),
  );
  assert.deepEqual(response.okResponse?.headersToRemove, ['x-internal']);
  assert.deepEqual(response.okResponse?.queryParametersToRemove, ['debug']);
  assert.deepEqual(response.okResponse?.queryParametersToSet, [
    { key: 'tenant', value: 'a' },
    { key: 'tenant', value: 'b' },
  ]);
});

test('a deny has the status, headers and body of the policy', () => {
  const response = tell(
    decided({ allowed: false, http_status: 302, headers: { location: '/login' }, body: 'moved' }),
  );
  assert.equal(response.deniedResponse?.status?.code, 'Found');
  assert.deepEqual(
    response.deniedResponse?.headers.map(({ header }) => [header?.key, header?.value]),
    [['location', '/login']],
  );
  assert.equal(response.deniedResponse?.body, 'moved');
  assert.equal(response.status?.code, 7);
});

test('a 200 of a policy that denies stays a deny', () => {
  const response = tell(decided({ allowed: false, http_status: 200 }));
  assert.equal(response.status?.code, 7);
  assert.equal(response.deniedResponse?.status?.code, 'OK');
});

test('dynamic metadata keeps every JSON type', () => {
  const sent = { a: [1, 'x', null, true, { b: [] }], n: -0.5, o: {} };
  const response = tell(decided({ allowed: true, dynamic_metadata: sent }));
  assert.deepEqual(metadataOf(response), { ...sent, decision_id: id });
});

const credentials = [
  { name: 'authorization', value: 'Bearer ours' },
  { name: 'x-audit', value: 'ours' },
];
const overwrites = (response: CheckResponse__Output, name: string) =>
  response.okResponse?.headers
    .filter(({ header }) => header?.key.toLowerCase() === name)
    .map(({ header, append, appendAction }) => [header?.value, append?.value ?? null, appendAction]);

for (const headerMode of ['overwrite', 'opa_envoy_plugin'] as const) {
  test(`credentials replace any header of their names, also what the policy says of them, in mode ${headerMode}`, () => {
    const outcome = decided({
      allowed: true,
      headers: { Authorization: 'Bearer of the policy', 'x-other': '1' },
      request_headers_to_remove: ['AUTHORIZATION', 'x-audit', 'x-gone'],
    });
    assert.ok(outcome.kind === 'allowed');
    const response = tell({ ...outcome, credentials }, { headerMode });
    assert.deepEqual(overwrites(response, 'authorization'), [
      ['Bearer ours', false, 'OVERWRITE_IF_EXISTS_OR_ADD'],
    ]);
    assert.deepEqual(overwrites(response, 'x-audit'), [['ours', false, 'OVERWRITE_IF_EXISTS_OR_ADD']]);
    assert.equal(overwrites(response, 'x-other')?.length, 1);
    assert.deepEqual(response.okResponse?.headersToRemove, ['x-gone']);
  });
}

test('credentials go with an allow that says nothing else, and with one that dry-run made', () => {
  const allowed = decided(true);
  assert.ok(allowed.kind === 'allowed');
  const denied = decided(false);
  assert.ok(denied.kind === 'denied');
  const lifted: Outcome = { kind: 'lifted', from: denied };
  for (const outcome of [allowed, lifted]) {
    assert.equal(overwrites(tell({ ...outcome, credentials }), 'authorization')?.length, 1);
    assert.deepEqual(overwrites(tell(outcome), 'authorization') ?? [], []);
  }
});
