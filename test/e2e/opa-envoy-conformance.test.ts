import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { HeaderMode } from '../../src/extauthz/check-response.ts';
import { createExtAuthzService } from '../../src/extauthz/service.ts';
import { decodeStructFields } from '../../src/extauthz/struct.ts';
import { createGrpcClient } from '../../src/grpc/client.ts';
import type { HeaderValueOption__Output } from '../../src/grpc/generated/envoy/config/core/v3/HeaderValueOption.ts';
import type { CheckResponse__Output } from '../../src/grpc/generated/envoy/service/auth/v3/CheckResponse.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import { createGrpcServer } from '../../src/grpc/server.ts';
import { createHttpClient } from '../../src/http/client.ts';
import { createOpaApi } from '../../src/policy/opa/opa-api.ts';
import { createOpaRestEngine } from '../../src/policy/opa/opa-rest.ts';
import type { PolicyEngine } from '../../src/policy/policy-engine.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { buildWasmBundle, startOpa } from '../support/opa.ts';
import {
  type Attributes,
  always,
  answers,
  bodies,
  documents,
  headerForms,
  http,
  overwritten,
  paths,
  statuses,
  unreadable,
} from '../support/opa-envoy-cases.ts';
import { tempDirectory } from '../support/process.ts';
import { loadWasmEngine } from '../support/wasm-engine.ts';
import { checkerWith, createTrust, neverAborted, type Trust } from '../unit/extauthz/harness.ts';

/** `echo` tells its input in the body of a denial, `answer` decides what the CheckRequest asks for. */
const module = `package conformance

echo := {"allowed": false, "body": json.marshal(input)}

answer := json.unmarshal(input.attributes.contextExtensions.answer)

conflict := 1 if input.version

conflict := 2 if input.attributes
`;
const files = { 'conformance.rego': module };
const rules = ['echo', 'answer', 'conflict'] as const;
const timeoutMs = 10_000;

const engines: Readonly<Record<string, (t: TestContext) => Promise<PolicyEngine>>> = {
  async 'a wasm bundle'(t) {
    const file = join(await tempDirectory(t), 'bundle.tar.gz');
    await buildWasmBundle(t, { files, entrypoints: rules.map((rule) => `conformance/${rule}`), into: file });
    return loadWasmEngine(t, file, timeoutMs);
  },
  async 'OPA over REST'(t) {
    const { url } = await startOpa(t, { over: 'tcp', files });
    const client = createHttpClient({ maxSockets: 16 });
    t.after(() => client.close());
    return createOpaRestEngine({ api: createOpaApi({ url, http: client }), timeoutMs, log: silentLogger });
  },
};

const requests = messageCodec('envoy.service.auth.v3.CheckRequest');
const responses = messageCodec('envoy.service.auth.v3.CheckResponse');

type Mode = Readonly<{
  headerMode?: HeaderMode;
  onFailure?: 'deny' | 'error';
  dryRun?: boolean;
  parse?: boolean;
}>;
type Ask = (
  rule: (typeof rules)[number],
  attributes: Attributes,
  mode?: Mode,
) => Promise<CheckResponse__Output>;

/** Checks over gRPC, each against a service of its mode. */
function serving(t: TestContext, engine: PolicyEngine, trust: Trust): Ask {
  async function start(rule: string, mode: Mode) {
    const service = createExtAuthzService({
      checker: checkerWith(trust, {
        engine,
        rules: { requirePeer: false },
        defaultPath: `conformance/${rule}`,
        dryRun: mode.dryRun ?? false,
        body: { parse: mode.parse ?? true, maxBytes: 1_048_576 },
      }),
      response: {
        headerMode: mode.headerMode ?? 'opa_envoy_plugin',
        onFailure: mode.onFailure ?? 'deny',
      },
      maxConcurrent: 10,
      timeoutMs: 60_000,
      now: Date.now,
      monotonicNow: () => performance.now(),
      onDecision() {},
      meter: { checked() {}, evaluated() {} },
    });
    const server = createGrpcServer({ services: [service], log: silentLogger });
    const { port } = await server.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    assert.ok(port !== undefined);
    const client = createGrpcClient({
      target: { kind: 'tcp', host: '127.0.0.1', port },
      maxMessageBytes: 4_194_304,
    });
    t.after(async () => {
      client.close();
      await server.shutdown(0);
    });
    return client;
  }
  const clients = new Map<string, ReturnType<typeof start>>();
  return async (rule, attributes, mode = {}) => {
    const key = JSON.stringify([rule, mode]);
    const starting = clients.get(key) ?? start(rule, mode);
    clients.set(key, starting);
    const client = await starting;
    const bytes = requests.encode({ attributes: attributes ?? null });
    const method = '/envoy.service.auth.v3.Authorization/Check';
    return responses.decode(await client.unary(method, bytes, { signal: neverAborted, timeoutMs: 20_000 }));
  };
}

/** The decision that the policy is to make; without one it makes none. */
function deciding(decision: unknown): Attributes {
  return decision === undefined ? {} : { contextExtensions: { answer: JSON.stringify(decision) } };
}

function metadataOf(response: CheckResponse__Output): Record<string, unknown> {
  const struct = decodeStructFields(response.dynamicMetadata?.fields);
  const { decision_id: id, ...metadata } = JSON.parse(JSON.stringify(struct)) as Record<string, unknown>;
  assert.match(String(id), /^[\da-f-]{36}$/);
  return metadata;
}

/** By name: objects have no order, but the values of one name do. */
function byName(pairs: readonly string[]): string[] {
  const nameOf = (pair: string): string => pair.slice(0, pair.indexOf('=')).toLowerCase();
  return pairs.toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : Number(nameOf(a) > nameOf(b))));
}

function plain(headers: readonly HeaderValueOption__Output[] | undefined): string[] {
  const pairs = (headers ?? []).map(({ header, append, appendAction }) => {
    assert.equal(append, null);
    assert.equal(appendAction, 'APPEND_IF_EXISTS_OR_ADD');
    return `${header?.key}=${header?.value}`;
  });
  return byName(pairs);
}

function assertDenied(response: CheckResponse__Output, status: string, code: string): void {
  assert.equal(response.status?.code, 7);
  assert.equal(response.deniedResponse?.status?.code, status);
  assert.equal(metadataOf(response)['reason_code'], code);
}

for (const [name, startEngine] of Object.entries(engines)) {
  test(`with ${name} Checks are answered as by opa-envoy-plugin`, { timeout: 60_000 }, async (t) => {
    const trust = await createTrust();
    const ask = serving(t, await startEngine(t), trust);

    /** The text that the policy got as its input; undefined when the request was refused as malformed. */
    async function inputText(attributes: Attributes, parse = true): Promise<string | undefined> {
      const response = await ask('echo', attributes, { parse });
      if (metadataOf(response)['reason_code'] !== 'malformed_request') {
        assertDenied(response, 'Forbidden', 'policy_denied');
        return response.deniedResponse?.body;
      }
      assertDenied(response, 'BadRequest', 'malformed_request');
      return undefined;
    }

    async function inputOf(
      attributes: Attributes,
      parse = true,
    ): Promise<Record<string, unknown> | undefined> {
      const text = await inputText(attributes, parse);
      if (text === undefined) return undefined;
      const { spiffe, ...input } = JSON.parse(text) as Record<string, unknown>;
      assert.ok(spiffe !== undefined);
      return input;
    }

    for (const { what, attributes, expected } of documents) {
      await t.test(`input for ${what}`, async () => {
        assert.deepEqual(await inputOf(attributes), { ...always, ...expected });
      });
    }
    for (const [path, parsedPath, parsedQuery] of paths) {
      await t.test(`path and query of ${path}`, async () => {
        const input = await inputOf(http({ path }));
        assert.deepEqual(input?.['parsed_path'], parsedPath);
        assert.deepEqual(input?.['parsed_query'], parsedQuery);
      });
    }
    for (const [what, members, expected] of bodies) {
      await t.test(`body ${what}`, async () => {
        const input = await inputOf(http(members));
        if (expected === 'malformed') assert.equal(input, undefined);
        else assert.deepEqual([input?.['parsed_body'], input?.['truncated_body']], expected);
      });
    }
    await t.test('numbers of a body stay exact', async () => {
      const number = '12345678901234567890';
      const headers = { 'content-type': 'application/json' };
      const text = await inputText(http({ headers, body: `{"id":${number}}` }));
      assert.ok(text?.includes(`"parsed_body":{"id":${number}}`), text);
    });
    await t.test('bodies that are not to be parsed leave no trace', async () => {
      const input = await inputOf(
        http({ headers: { 'content-type': 'application/json' }, body: '{' }),
        false,
      );
      assert.ok(input !== undefined && !('parsed_body' in input) && !('truncated_body' in input));
    });

    for (const { what, decision, expected } of answers) {
      await t.test(`answer to ${what}`, async () => {
        const response = await ask('answer', deciding(decision));
        const { okResponse, deniedResponse } = response;
        const http = okResponse ?? deniedResponse;
        assert.deepEqual(
          {
            code: response.status?.code,
            http: response.httpResponse,
            headers: plain(http?.headers),
            metadata: metadataOf(response),
            added: plain(okResponse?.responseHeadersToAdd),
            removed: okResponse?.headersToRemove ?? [],
            query: byName(
              (okResponse?.queryParametersToSet ?? []).map(({ key, value }) => `${key}=${value}`),
            ),
            queryRemoved: okResponse?.queryParametersToRemove ?? [],
            status: deniedResponse?.status?.code,
            body: deniedResponse?.body ?? '',
          },
          {
            headers: [],
            added: [],
            removed: [],
            query: [],
            queryRemoved: [],
            status: undefined,
            body: '',
            metadata: {},
            ...expected,
          },
        );
      });
    }
    for (const [what, headers, expected] of headerForms) {
      await t.test(`headers as ${what}`, async () => {
        const removal = { request_headers_to_remove: ['x'] };
        const allowed = await ask('answer', deciding({ allowed: true, headers, ...removal }));
        assert.deepEqual(plain(allowed.okResponse?.headers), expected);
        const added = await ask(
          'answer',
          deciding({ allowed: true, response_headers_to_add: headers, ...removal }),
        );
        assert.deepEqual(plain(added.okResponse?.responseHeadersToAdd), expected);
        const denied = await ask('answer', deciding({ allowed: false, headers }));
        assert.deepEqual(plain(denied.deniedResponse?.headers), expected);
      });
    }
    for (const [what, headers, expected] of overwritten) {
      await t.test(`by default, ${what}`, async () => {
        const decision = { allowed: true, headers, response_headers_to_add: { 'set-cookie': ['a', 'b'] } };
        const { okResponse } = await ask('answer', deciding(decision), { headerMode: 'overwrite' });
        assert.deepEqual(
          byName(
            (okResponse?.headers ?? []).map(({ header, append, appendAction, keepEmptyValue }) =>
              [`${header?.key}=${header?.value}`, append?.value, appendAction, keepEmptyValue].join(' '),
            ),
          ),
          expected.map((option) => option.join(' ')),
        );
        assert.deepEqual(plain(okResponse?.responseHeadersToAdd), ['set-cookie=a', 'set-cookie=b']);
      });
    }
    for (const [status, accepted] of statuses) {
      await t.test(`http_status ${status} is ${accepted ? 'sent' : 'no status, and a denial'}`, async () => {
        const decision = { allowed: false, http_status: status, body: 'b' };
        const response = await ask('answer', deciding(decision));
        if (accepted) {
          assert.equal(metadataOf(response)['reason_code'], 'policy_denied');
          const wire = responses.encode({ deniedResponse: { status: { code: status as 403 }, body: 'b' } });
          assert.equal(
            response.deniedResponse?.status?.code,
            responses.decode(wire).deniedResponse?.status?.code,
          );
        } else assertDenied(response, 'Forbidden', 'malformed_decision');
      });
    }
    for (const [what, decision, code] of unreadable) {
      await t.test(`a decision that is ${what} is denied`, async () => {
        assertDenied(await ask('answer', deciding(decision)), 'Forbidden', code);
      });
    }

    await t.test('a policy that contradicts itself is a failure, which on_failure decides', async () => {
      assertDenied(await ask('conflict', {}), 'Forbidden', 'engine_error');
      const response = await ask('conflict', {}, { onFailure: 'error' });
      assert.equal(response.status?.code, 14);
      assert.equal(response.httpResponse, 'errorResponse');
      assert.equal(metadataOf(response)['reason_code'], 'engine_error');
    });
    await t.test('on_failure has no say in what a policy or a request did wrong', async () => {
      const mode = { onFailure: 'error' } as const;
      assertDenied(await ask('answer', deciding(undefined), mode), 'Forbidden', 'undefined_decision');
      assertDenied(await ask('answer', deciding('x'), mode), 'Forbidden', 'malformed_decision');
      assertDenied(await ask('answer', http({ path: '/%' }), mode), 'BadRequest', 'malformed_request');
    });
    await t.test('dry run lifts denials and keeps their metadata, but not malformed requests', async () => {
      const mode = { dryRun: true };
      const decision = { allowed: false, http_status: 401, headers: { a: '1' }, dynamic_metadata: { m: 1 } };
      const lifted = await ask('answer', deciding(decision), mode);
      assert.equal(lifted.status?.code, 0);
      assert.deepEqual(lifted.okResponse?.headers, []);
      assert.equal(metadataOf(lifted)['m'], 1);
      const allowed = await ask('answer', deciding({ allowed: true, headers: { a: '1' } }), mode);
      assert.deepEqual(plain(allowed.okResponse?.headers), ['a=1']);
      assertDenied(await ask('answer', http({ path: '/%' }), mode), 'BadRequest', 'malformed_request');
    });
    await t.test('dry run lifts failures too, which the plugin does not', async () => {
      assert.equal((await ask('conflict', {}, { dryRun: true })).status?.code, 0);
    });
  });
}
