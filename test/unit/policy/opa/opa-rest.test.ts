import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { createHttpClient } from '../../../../src/http/client.ts';
import { ServerIdentityError } from '../../../../src/http/server-trust.ts';
import { NoCredentialsError } from '../../../../src/http/verified-pool.ts';
import { createOpaApi } from '../../../../src/policy/opa/opa-api.ts';
import { createOpaRestEngine, type OpaRestEngine } from '../../../../src/policy/opa/opa-rest.ts';
import type { Evaluation } from '../../../../src/policy/policy-engine.ts';
import { UnavailableError } from '../../../../src/runtime/errors.ts';
import { type Logger, silentLogger } from '../../../../src/runtime/log.ts';

const forever = new AbortController().signal;

type Fake = Readonly<{
  engine: OpaRestEngine;
  server: Server;
  requests: { method: string; url: string; body: string }[];
  log: string[];
}>;

/** An engine and an OPA that answers as the test wants; what a real one answers is in test/e2e/opa-engine.test.ts. */
async function setUp(
  t: TestContext,
  answer: (response: ServerResponse, request: IncomingMessage) => void,
  options: Readonly<{ provenance?: boolean }> = {},
): Promise<Fake> {
  const requests: { method: string; url: string; body: string }[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      requests.push({
        method: request.method ?? '',
        url: request.url ?? '',
        body: Buffer.concat(chunks).toString(),
      });
      answer(response, request);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const http = createHttpClient({ maxSockets: 8 });
  t.after(() => {
    http.close();
    server.close();
    server.closeAllConnections();
  });
  const log: string[] = [];
  const note = (_: object, message: string): void => void log.push(message);
  const logger: Logger = { debug: note, info: note, warn: note, error: note };
  const url = `http://127.0.0.1:${address.port}`;
  const engine = createOpaRestEngine({
    api: createOpaApi({ url, http }),
    timeoutMs: 2_000,
    log: logger,
    ...options,
  });
  return { engine, server, requests, log };
}

function json(body: unknown, status = 200): (response: ServerResponse) => void {
  return (response) => response.writeHead(status).end(JSON.stringify(body));
}

async function failure(evaluation: Promise<Evaluation>): Promise<string> {
  const answer = await evaluation;
  return answer.kind === 'failure' ? `${answer.reason}: ${answer.message}` : JSON.stringify(answer);
}

test('it posts the input to the Data API and gives the result', async (t) => {
  const { engine, requests } = await setUp(t, json({ result: { allowed: true } }));
  const answer = await engine.evaluate('envoy/authz/allow', { a: 'ü' }, forever);
  assert.deepEqual(answer, { kind: 'result', value: { allowed: true } });
  assert.deepEqual(requests, [
    { method: 'POST', url: '/v1/data/envoy/authz/allow', body: '{"input":{"a":"ü"}}' },
  ]);
});

test('a result of null or false is a result, no result is undefined', async (t) => {
  let body: unknown = { result: null };
  const { engine } = await setUp(t, (response) => json(body)(response));
  assert.deepEqual(await engine.evaluate('a', {}, forever), { kind: 'result', value: null });
  body = { result: false };
  assert.deepEqual(await engine.evaluate('a', {}, forever), { kind: 'result', value: false });
  body = {};
  assert.deepEqual(await engine.evaluate('a', {}, forever), { kind: 'undefined' });
});

test('what OPA tells of itself comes with the decision: its own id, and the revisions of its bundles', async (t) => {
  let body: unknown;
  const { engine, requests } = await setUp(t, (response) => json(body)(response), { provenance: true });
  const told = async (more: object): Promise<unknown> => {
    body = { result: true, ...more };
    const { kind, value, ...origin } = (await engine.evaluate('a', {}, forever)) as {
      kind: string;
      value: true;
    };
    assert.deepEqual([kind, value], ['result', true]);
    return origin;
  };
  const bundles = { authz: { revision: 'r1' }, data: { revision: '' } };
  assert.deepEqual(await told({ decision_id: 'their-id', provenance: { version: '1.22.2', bundles } }), {
    engineDecisionId: 'their-id',
    bundles,
  });
  assert.equal(requests[0]?.url, '/v1/data/a?provenance=true');
  assert.deepEqual(await told({ provenance: { version: '1.22.2' } }), {});
  assert.deepEqual(await told({ provenance: { revision: 'old' } }), {
    bundles: { opa: { revision: 'old' } },
  });
  for (const rubbish of [null, 7, 'x', [], { bundles: [] }, { bundles: 7 }, { revision: {} }]) {
    assert.deepEqual(await told({ decision_id: rubbish === 'x' ? '' : rubbish, provenance: rubbish }), {});
  }
  const odd = await told({
    provenance: { bundles: { a: null, b: { revision: 7 }, ['__proto__']: { revision: 'x' } } },
  });
  assert.deepEqual(Object.entries((odd as { bundles: object }).bundles), [
    ['a', { revision: '' }],
    ['b', { revision: '' }],
    ['__proto__', { revision: 'x' }],
  ]);
  const many = Object.fromEntries(
    Array.from({ length: 1_000 }, (_, index) => [`b${index}`, { revision: 'r'.repeat(1_000) }]),
  );
  const bounded = (await told({ decision_id: 'i'.repeat(1_000), provenance: { bundles: many } })) as {
    bundles: Record<string, { revision: string }>;
    engineDecisionId: string;
  };
  assert.equal(Object.keys(bounded.bundles).length, 64);
  assert.equal(bounded.bundles['b0']?.revision.length, 256);
  assert.equal(bounded.engineDecisionId.length, 256);
});

test('segments of the path are encoded, and dot segments are refused without asking', async (t) => {
  const { engine, requests } = await setUp(t, json({}));
  await engine.evaluate('/a b/ü/c?d#e%2f/', {}, forever);
  assert.deepEqual(requests[0]?.url, '/v1/data/a%20b/%C3%BC/c%3Fd%23e%252f');
  for (const path of ['a/../b', '.', '\ud800']) {
    assert.match(await failure(engine.evaluate(path, {}, forever)), /^engine_error: path/);
  }
  assert.equal(requests.length, 1);
});

test("an error of OPA is an engine error with OPA's message, bounded", async (t) => {
  const error = {
    code: 'internal_error',
    message: `error(s) occurred while evaluating query${'!'.repeat(10_000)}`,
  };
  const { engine } = await setUp(t, json(error, 500));
  const message = await failure(engine.evaluate('a', {}, forever));
  assert.match(message, /^engine_error: OPA answered HTTP status 500: error\(s\) occurred/);
  assert.ok(message.length < 400);
});

test('each kind of bad answer has its failure', async (t) => {
  const table: readonly (readonly [number, string, RegExp])[] = [
    [200, 'rubbish', /^engine_error: answer of OPA is not JSON/],
    [200, '', /^engine_error: answer of OPA is not JSON/],
    [200, '[]', /^engine_error: answer of OPA is not a JSON object/],
    [200, 'null', /^engine_error: answer of OPA is not a JSON object/],
    [302, '', /^engine_error: OPA answered HTTP status 302/],
    [404, '{"result":true}', /^engine_error: OPA answered HTTP status 404/],
    [401, '{"code":"unauthorized","message":7}', /^engine_error: OPA answered HTTP status 401$/],
    [429, '', /^engine_unavailable: OPA answered HTTP status 429/],
    [503, '<html>', /^engine_unavailable: OPA answered HTTP status 503$/],
    [200, `{"result":"${'x'.repeat(5_000_000)}"}`, /^engine_error: .*longer than/],
  ];
  let next: readonly [number, string] = [200, ''];
  const { engine } = await setUp(t, (response) => response.writeHead(next[0]).end(next[1]));
  for (const [status, body, expected] of table) {
    next = [status, body];
    assert.match(await failure(engine.evaluate('a', {}, forever)), expected);
  }
});

test('an input that JSON cannot hold is an engine error', async (t) => {
  const { engine } = await setUp(t, json({ result: true }));
  assert.match(
    await failure(engine.evaluate('a', 1n, forever)),
    /^engine_error: input cannot be written as JSON/,
  );
});

test('a silent OPA is a timeout when the signal fires or the own bound is reached', async (t) => {
  const stop = new AbortController();
  const { engine } = await setUp(t, () => stop.abort());
  assert.match(await failure(engine.evaluate('a', {}, stop.signal)), /^engine_timeout/);
  assert.match(await failure(engine.evaluate('a', {}, stop.signal)), /^engine_timeout/);
  assert.match(await failure(engine.evaluate('a', {}, forever)), /^engine_timeout: no answer within 2000 ms/);
});

test('an OPA that is away is unavailable, logged once, and logged again when it is back', async (t) => {
  const fake = await setUp(t, json({ result: true }));
  const { engine, server, log } = fake;
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  server.close();
  server.closeAllConnections();
  for (let i = 0; i < 3; i++) {
    assert.match(await failure(engine.evaluate('a', {}, forever)), /^engine_unavailable: .*ECONNREFUSED/);
  }
  await new Promise<void>((resolve) => {
    server.listen(address.port, '127.0.0.1', resolve);
  });
  assert.equal((await engine.evaluate('a', {}, forever)).kind, 'result');
  assert.equal((await engine.evaluate('a', {}, forever)).kind, 'result');
  assert.deepEqual(log, ['OPA cannot be reached: start it, or correct policy.opa.url', 'OPA answers again']);
  assert.equal(engine.ready(), true);
});

test('a kept connection that OPA resets is tried once more on a new one', async (t) => {
  let resets = 1;
  const { engine, requests } = await setUp(t, (response, request) => {
    if (resets-- > 0) request.socket.resetAndDestroy();
    else json({ result: true })(response);
  });
  assert.equal((await engine.evaluate('a', {}, forever)).kind, 'result');
  assert.equal(requests.length, 2);
  resets = 2;
  assert.match(await failure(engine.evaluate('a', {}, forever)), /^engine_unavailable/);
});

test('probe asks for health and says what is wrong', async (t) => {
  let status = 200;
  const { engine, requests, server } = await setUp(t, (response) => json({}, status)(response));
  await engine.probe(forever);
  assert.equal(requests[0]?.url, '/health');
  status = 500;
  await assert.rejects(engine.probe(forever), /is not healthy \(HTTP status 500\)/);
  server.close();
  server.closeAllConnections();
  await assert.rejects(
    engine.probe(forever),
    /^UnavailableError: OPA cannot be reached \(GET .*ECONN\w+\): start it/,
  );
});

test('what to do is told by what is wrong: no OPA, another server, or no identity of ours', async () => {
  for (const [error, remedy] of [
    [new UnavailableError('gone'), /^OPA cannot be reached \(gone\): start it, or correct policy\.opa\.url$/],
    [new ServerIdentityError('other'), /\(other\): its certificate and policy\.opa\.spiffe_ids must fit$/],
    [new NoCredentialsError('none'), /\(none\): mend the identity source$/],
  ] as const) {
    const api = { url: 'https://opa', send: () => Promise.reject(error) };
    const engine = createOpaRestEngine({ api, timeoutMs: 100, log: silentLogger });
    assert.match(await failure(engine.evaluate('a', {}, forever)), /^engine_unavailable/);
    await assert.rejects(engine.probe(forever), { message: remedy });
  }
});
