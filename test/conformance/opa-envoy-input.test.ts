import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createResponseEncoder } from '../../src/extauthz/response-encoder.ts';
import { decodeStructFields } from '../../src/extauthz/struct.ts';
import type { HeaderValueOption__Output } from '../../src/grpc/generated/envoy/config/core/v3/HeaderValueOption.ts';
import type { CheckResponse__Output } from '../../src/grpc/generated/envoy/service/auth/v3/CheckResponse.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import {
  type Attributes,
  always,
  bodies,
  documents,
  headerForms,
  http,
  paths,
  unreadable,
} from '../support/opa-envoy-cases.ts';
import {
  answering,
  checkerWith,
  createTrust,
  neverAborted,
  onTheWire,
  type Trust,
} from '../unit/extauthz/harness.ts';

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

describe('the input document', () => {
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
  for (const [path, parsedPath, parsedQuery] of paths) {
    it(`of ${path}`, async () => {
      const input = await inputOf(http({ path }));
      assert.deepEqual(input?.['parsed_path'], parsedPath);
      assert.deepEqual(input?.['parsed_query'], parsedQuery);
    });
  }
});

describe('the body', () => {
  for (const [what, members, expected] of bodies) {
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

  for (const [what, headers, expected] of headerForms) {
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

  for (const [what, decision, code] of unreadable) {
    it(`denies ${what}`, async () => {
      const { response, metadata, id } = await answerTo(decision);
      assert.equal(response.status?.code, 7);
      assert.equal(response.deniedResponse?.status?.code, 'Forbidden');
      assert.deepEqual(metadata, { decision_id: id, reason: code, reason_code: code });
    });
  }
});
