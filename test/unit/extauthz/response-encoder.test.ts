import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildCheckResponse, type ResponseOptions } from '../../../src/extauthz/check-response.ts';
import { lift, type Outcome, outcomeOf } from '../../../src/extauthz/outcome.ts';
import { type ReasonCode, refuse } from '../../../src/extauthz/reason.ts';
import { createResponseEncoder } from '../../../src/extauthz/response-encoder.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';

const codec = messageCodec('envoy.service.auth.v3.CheckResponse');
const id = '0f0e0d0c-0b0a-4908-8706-050403020100';
const defaults: ResponseOptions = { headerMode: 'overwrite', onFailure: 'deny' };
const failed: Outcome = {
  kind: 'failed',
  reasonCode: 'engine_unavailable',
  message: 'only for the operator',
};

function decided(value: unknown): Outcome {
  return outcomeOf({ kind: 'result', value });
}

function refusal(code: ReasonCode): Outcome {
  return { kind: 'refused', refusal: refuse(code, 'only for the operator') };
}

function tooDeep(): object {
  let metadata: object = { end: true };
  for (let i = 0; i < 200; i++) metadata = { deeper: metadata };
  return metadata;
}

test('responses that differ only in their ID are stamped right', () => {
  const encode = createResponseEncoder(defaults);
  const other = 'ffffffff-ffff-4fff-bfff-ffffffffffff';
  for (const outcome of [
    decided(true),
    decided(false),
    failed,
    refusal('no_query'),
    refusal('identity_denied'),
  ]) {
    for (const decisionId of [id, other, id]) {
      const { bytes } = encode(outcome, decisionId);
      assert.deepEqual(bytes, codec.encode(buildCheckResponse(outcome, decisionId, defaults)));
    }
  }
});

test('what differs in more than its ID is never stamped from another', () => {
  const encode = createResponseEncoder(defaults);
  const outcomes = [
    decided({ allow: false, reason: 'one' }),
    decided({ allow: false, reason: 'two' }),
    decided(false),
    decided({ allowed: false, http_status: 401 }),
    decided({ allowed: false, body: 'b' }),
    decided({ allowed: true, headers: { a: '1' } }),
    decided({ allowed: true, dynamic_metadata: { a: 1 } }),
    decided(true),
    lift(decided({ allowed: false, dynamic_metadata: { a: 1 } })),
    lift(decided(false)),
  ];
  for (const outcome of [...outcomes, ...outcomes.reverse()]) {
    assert.deepEqual(encode(outcome, id).bytes, codec.encode(buildCheckResponse(outcome, id, defaults)));
  }
});

test('an allow with dynamic metadata too deep for the wire becomes a malformed decision', () => {
  const { outcome, bytes } = createResponseEncoder(defaults)(
    decided({ allowed: true, dynamic_metadata: tooDeep() }),
    id,
  );
  assert.ok(outcome.kind === 'denied' && outcome.decision.code === 'malformed_decision');
  assert.equal(codec.decode(bytes).status?.code, 7);
});

test('in dry-run it stays an allow, without that metadata', () => {
  const { outcome, bytes } = createResponseEncoder(defaults)(
    lift(decided({ allowed: false, dynamic_metadata: tooDeep() })),
    id,
  );
  assert.equal(outcome.kind, 'lifted');
  assert.equal(codec.decode(bytes).status?.code ?? 0, 0);
});
