import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import { reasonCodeOf } from '../../../src/extauthz/outcome.ts';
import type { CheckRequest as WireCheckRequest } from '../../../src/grpc/generated/envoy/service/auth/v3/CheckRequest.ts';
import type { Evaluation } from '../../../src/policy/policy-engine.ts';
import { AbortedError, MalformedError } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { emptySnapshot } from '../../../src/trust/snapshot.ts';
import { testNow } from '../../support/ca.ts';
import {
  answering,
  api,
  type CheckerParts,
  checkerWith,
  checkOnce,
  createTrust,
  failing,
  functionEngine,
  getRequest,
  identities,
  neverAborted,
  onTheWire,
  snapshotHolder,
  type Trust,
  tcpConnection,
  urlEncodedPem,
  web,
} from './harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

const foreign = 'spiffe://partner.example/agents/a';

/** Each refusal beside the nearest thing that passes. */
const table: readonly Readonly<{
  code: string;
  kind?: 'refused' | 'denied' | 'failed';
  what: string;
  parts?: CheckerParts;
  request?: () => WireCheckRequest['attributes'] | Promise<WireCheckRequest['attributes']>;
  passes: Readonly<{
    parts?: CheckerParts;
    request?: () => WireCheckRequest['attributes'] | Promise<WireCheckRequest['attributes']>;
  }>;
}>[] = [
  {
    code: 'no_peer_identity',
    what: 'a peer without a principal',
    request: () => getRequest({ principal: '' }),
    passes: {
      parts: { rules: { requirePeer: false } },
      request: () => getRequest({ principal: '' }),
    },
  },
  {
    code: 'no_peer_identity',
    what: 'a principal that is a DNS name',
    request: () => getRequest({ principal: 'web.example.org' }),
    passes: {},
  },
  {
    code: 'no_peer_identity',
    what: 'a principal that is a broken SPIFFE ID',
    request: () => getRequest({ principal: 'spiffe://example.org/a/../b' }),
    passes: {},
  },
  {
    code: 'peer_mismatch',
    what: 'a certificate of another identity than the principal',
    request: async () => getRequest({ certificate: urlEncodedPem((await trust.own.svid(api)).chain[0]) }),
    passes: {
      request: async () => getRequest({ certificate: urlEncodedPem((await trust.own.svid(web)).chain[0]) }),
    },
  },
  {
    code: 'untrusted_certificate',
    what: 'a missing certificate that is required',
    parts: { verifyCertificate: 'required' },
    passes: {
      parts: { verifyCertificate: 'required' },
      request: async () => getRequest({ certificate: urlEncodedPem((await trust.own.svid(web)).chain[0]) }),
    },
  },
  {
    code: 'untrusted_certificate',
    what: 'a certificate that is no PEM',
    request: () => getRequest({ certificate: 'rubbish' }),
    passes: { parts: { verifyCertificate: 'off' }, request: () => getRequest({ certificate: 'rubbish' }) },
  },
  {
    code: 'untrusted_certificate',
    what: 'an expired certificate',
    request: async () => {
      const leaf = await trust.own.leaf({ uris: [web], notAfter: testNow - 1_000 });
      return getRequest({ certificate: urlEncodedPem(leaf.certificate) });
    },
    passes: {
      request: async () => {
        const leaf = await trust.own.leaf({ uris: [web], notAfter: testNow + 1_000 });
        return getRequest({ certificate: urlEncodedPem(leaf.certificate) });
      },
    },
  },
  {
    code: 'untrusted_chain',
    what: 'a certificate that another authority signed',
    request: async () => {
      const leaf = await trust.own.leaf({ uris: [web], signedBy: trust.partner });
      return getRequest({ certificate: urlEncodedPem(leaf.certificate) });
    },
    passes: {
      request: async () => {
        const leaf = await trust.own.leaf({ uris: [web], signedBy: trust.own });
        return getRequest({ certificate: urlEncodedPem(leaf.certificate) });
      },
    },
  },
  {
    code: 'identity_denied',
    what: 'a peer on the denied list',
    parts: { rules: { denied: identities('spiffe://example.org/service/*') } },
    passes: { parts: { rules: { denied: identities('spiffe://example.org/agent/*') } } },
  },
  {
    code: 'identity_not_allowed',
    what: 'a peer of the own domain that no allowed identity names',
    parts: { rules: { allowed: identities('spiffe://example.org/agent/*') } },
    passes: { parts: { rules: { allowed: identities('spiffe://example.org/service/*') } } },
  },
  {
    code: 'foreign_trust_domain',
    what: 'a peer of another trust domain',
    request: () => getRequest({ principal: foreign }),
    passes: {
      parts: {
        rules: {
          federated: new Map([
            [parseTrustDomain('partner.example'), identities('spiffe://partner.example/*')],
          ]),
        },
      },
      request: () => getRequest({ principal: foreign }),
    },
  },
  {
    code: 'malformed_request',
    what: 'a broken escape in the path',
    request: () => getRequest({ path: '/a%zz' }),
    passes: { request: () => getRequest({ path: '/a%2a' }) },
  },
  {
    code: 'malformed_request',
    what: 'a body that is not what its type says',
    request: () => getRequest({ headers: { 'content-type': 'application/json' }, body: '{' }),
    passes: { request: () => getRequest({ headers: { 'content-type': 'application/json' }, body: '{}' }) },
  },
  {
    code: 'malformed_request',
    what: 'a capture that is no segment of a SPIFFE ID',
    parts: {
      queries: [{ match: { path: '/v1/:owner' }, set: { owner: 'spiffe://example.org/agent/{owner}' } }],
    },
    request: () => getRequest({ path: '/v1/a%20b' }),
    passes: {
      parts: {
        queries: [{ match: { path: '/v1/:owner' }, set: { owner: 'spiffe://example.org/agent/{owner}' } }],
      },
      request: () => getRequest({ path: '/v1/ab' }),
    },
  },
  {
    code: 'unsafe_path',
    what: 'a path that servers read differently',
    parts: { queries: [{ match: { path: '/v1/*' } }] },
    request: () => getRequest({ path: '/v1/../admin' }),
    passes: { request: () => getRequest({ path: '/v1/../admin' }) },
  },
  {
    code: 'no_query',
    what: 'a request that no query matches, without a default',
    parts: { defaultPath: '', queries: [{ path: 'a/b', match: { method: ['POST'] } }] },
    passes: { parts: { defaultPath: '', queries: [{ path: 'a/b', match: { method: ['GET'] } }] } },
  },
  {
    code: 'policy_denied',
    kind: 'denied',
    what: 'a policy that says no',
    parts: { engine: answering({ allow: false, reason: 'nobody may' }) },
    passes: { parts: { engine: answering({ allow: true, reason: 'all may' }) } },
  },
  {
    code: 'undefined_decision',
    kind: 'denied',
    what: 'a policy without an answer',
    parts: { engine: answering(undefined) },
    passes: { parts: { engine: answering(true) } },
  },
  {
    code: 'malformed_decision',
    kind: 'denied',
    what: 'an answer that is neither yes nor no',
    parts: { engine: answering('true') },
    passes: { parts: { engine: answering(true) } },
  },
  {
    code: 'malformed_decision',
    kind: 'denied',
    what: 'an answer of null',
    parts: { engine: answering(null) },
    passes: { parts: { engine: answering(true) } },
  },
  {
    code: 'conflicting_decision',
    kind: 'denied',
    what: 'an answer of yes and no',
    parts: { engine: answering({ allow: true, allowed: false }) },
    passes: { parts: { engine: answering({ allow: true, allowed: true }) } },
  },
  ...(['engine_unavailable', 'engine_timeout', 'engine_error'] as const).map((code) => ({
    code,
    kind: 'failed' as const,
    what: 'an engine that fails',
    parts: { engine: failing(code) },
    passes: { parts: { engine: answering(true) } },
  })),
  {
    code: 'not_ready',
    what: 'a Check before the first identity',
    parts: { snapshots: snapshotHolder(emptySnapshot) },
    passes: {},
  },
  {
    code: 'not_ready',
    what: 'a Check before the first policy',
    parts: { engine: functionEngine(() => ({ kind: 'result', value: true }), false) },
    passes: {},
  },
];

for (const { code, kind = 'refused', what, parts, request = getRequest, passes } of table) {
  test(`${what} is ${code}, and what differs only in that passes`, async () => {
    const no = await checkOnce(trust, parts ?? {}, await request());
    assert.equal(reasonCodeOf(no.outcome), code);
    assert.equal(no.outcome.kind, kind);
    const yes = await checkOnce(trust, passes.parts ?? {}, await (passes.request ?? getRequest)());
    assert.equal(yes.outcome.kind, 'allowed');
  });
}

test('a trace shows every step', async () => {
  const trace = await checkOnce(
    trust,
    {
      queries: [
        { match: { peer: 'spiffe://example.org/service/:name' }, path: 'a/b', set: { who: '{name}' } },
      ],
    },
    getRequest(),
  );
  assert.equal(trace.peer?.id, web);
  assert.equal(trace.query?.path, 'a/b');
  assert.equal(trace.input?.['who'], 'web');
  assert.deepEqual(trace.evaluation, { kind: 'result', value: true });
  assert.match(trace.decisionId, /^[0-9a-f-]{36}$/);
  assert.equal(trace.startedAt, testNow);
  assert.ok(trace.durationMs >= (trace.engineMs ?? Number.NaN));
});

test('a refusal by an identity rule never reaches the engine', async () => {
  let asked = 0;
  const engine = functionEngine(() => {
    asked += 1;
    return { kind: 'result', value: true };
  });
  await checkOnce(trust, { engine, rules: { denied: identities(web) } }, getRequest());
  assert.equal(asked, 0);
  await checkOnce(trust, { engine }, getRequest());
  assert.equal(asked, 1);
});

test('a connection of the TCP filter is judged without any request', async () => {
  const inputs: unknown[] = [];
  const engine = functionEngine((_path, input) => {
    inputs.push(input);
    return { kind: 'result', value: true };
  });
  const trace = await checkOnce(trust, { engine }, tcpConnection());
  assert.equal(trace.outcome.kind, 'allowed');
  const [input] = inputs as [Record<string, unknown>];
  assert.deepEqual(input['parsed_path'], ['']);
  assert.equal('request' in (input['attributes'] as object), false);
});

test('a TCP connection matches no query with an HTTP key', async () => {
  const queries = [{ path: 'http', match: { method: ['GET'] } }, { path: 'tcp' }];
  assert.equal((await checkOnce(trust, { queries }, tcpConnection())).query?.path, 'tcp');
  assert.equal((await checkOnce(trust, { queries }, getRequest())).query?.path, 'http');
});

test('an empty CheckRequest is judged as one without a peer', async () => {
  const trace = await checkOnce(trust, {}, null);
  assert.equal(reasonCodeOf(trace.outcome), 'no_peer_identity');
  const passed = await checkOnce(trust, { rules: { requirePeer: false } }, null);
  assert.equal(passed.outcome.kind, 'allowed');
  assert.equal(passed.input !== undefined && 'attributes' in passed.input, false);
});

test('a CONNECT without a path is judged', async () => {
  const trace = await checkOnce(trust, {}, getRequest({ method: 'CONNECT', path: '' }));
  assert.equal(trace.outcome.kind, 'allowed');
  assert.deepEqual(trace.input?.['parsed_path'], ['']);
});

test('bytes that are no CheckRequest are malformed, not an empty request', async () => {
  const checker = checkerWith(trust, { rules: { requirePeer: false } });
  const trace = await checker.check(new MalformedError('not a message'), neverAborted);
  assert.equal(reasonCodeOf(trace.outcome), 'malformed_request');
});

test('dry-run lifts denials and failures, and keeps what was lifted', async () => {
  for (const engine of [
    answering(false),
    answering(undefined),
    answering(7),
    failing('engine_unavailable'),
  ]) {
    const strict = await checkOnce(trust, { engine }, getRequest());
    const lifted = await checkOnce(trust, { engine, dryRun: true }, getRequest());
    assert.deepEqual(lifted.outcome, { kind: 'lifted', from: strict.outcome });
  }
});

test('dry-run leaves an allow as it is', async () => {
  const trace = await checkOnce(trust, { dryRun: true }, getRequest());
  assert.equal(trace.outcome.kind, 'allowed');
});

test('dry-run lifts nothing that our own rules refuse', async () => {
  for (const { kind = 'refused', code, parts, request = getRequest } of table) {
    if (kind !== 'refused') continue;
    const trace = await checkOnce(trust, { ...parts, dryRun: true }, await request());
    assert.equal(trace.outcome.kind, 'refused', code);
  }
});

test('dry-run of one query leaves the others strict', async () => {
  const queries = [{ match: { method: ['GET'] } }, { match: { method: ['POST'] } }];
  const parts = { engine: answering(false), queries, dryRunQueries: new Set([0]) };
  assert.equal((await checkOnce(trust, parts, getRequest())).outcome.kind, 'lifted');
  assert.equal((await checkOnce(trust, parts, getRequest({ method: 'POST' }))).outcome.kind, 'denied');
  assert.equal((await checkOnce(trust, parts, getRequest({ method: 'PUT' }))).outcome.kind, 'denied');
});

test('an engine that never answers costs a Check its timeout and no more', async () => {
  const engine = functionEngine(() => new Promise<Evaluation>(() => {}));
  const trace = await checkOnce(trust, { engine, timeoutMs: 5 }, getRequest());
  assert.equal(reasonCodeOf(trace.outcome), 'engine_timeout');
  assert.equal(trace.outcome.kind, 'failed');
  assert.equal(trace.input?.['source_principal'], web);
});

for (const dryRun of [false, true]) {
  test(`the timeout also bounds what comes before the engine, and then ${dryRun ? 'dry-run lifts nothing' : 'it is a denial'}`, async () => {
    const peerSources = [() => new Promise<undefined>(() => {})];
    const trace = await checkOnce(trust, { peerSources, timeoutMs: 5, dryRun }, getRequest());
    assert.equal(trace.outcome.kind, 'refused');
    assert.equal(reasonCodeOf(trace.outcome), 'token_unavailable');
  });
}

test("a caller's deadline that is nearer than the timeout counts", async () => {
  const engine = functionEngine(() => new Promise<Evaluation>(() => {}));
  const checker = checkerWith(trust, { engine, timeoutMs: 60_000 });
  const trace = await checker.check(onTheWire(getRequest()), neverAborted, testNow + 5);
  assert.equal(reasonCodeOf(trace.outcome), 'engine_timeout');
});

test('the engine hears when the caller goes away, and the Check ends as aborted', async () => {
  const caller = new AbortController();
  const heard = Promise.withResolvers<void>();
  const engine = functionEngine((_path, _input, signal) => {
    signal.addEventListener('abort', () => heard.resolve());
    caller.abort();
    return new Promise<Evaluation>(() => {});
  });
  await assert.rejects(
    checkerWith(trust, { engine }).check(onTheWire(getRequest()), caller.signal),
    AbortedError,
  );
  await heard.promise;
});

test('an engine that breaks its promise and throws is a deny, also in dry-run', async () => {
  const logged: string[] = [];
  const engine = functionEngine(() => {
    throw new TypeError('defect');
  });
  const log = { ...silentLogger, error: (_fields: object, message: string) => logged.push(message) };
  const trace = await checkOnce(trust, { engine, log, dryRun: true }, getRequest());
  assert.equal(trace.outcome.kind, 'refused');
  assert.deepEqual(logged, ['check failed']);
});

test('the denied list of the moment decides', async () => {
  let denied = identities();
  const checker = checkerWith(trust, { identityRules: () => ({ requirePeer: true, denied }) });
  const check = () => checker.check(onTheWire(getRequest()), neverAborted);
  assert.equal((await check()).outcome.kind, 'allowed');
  denied = identities(web);
  assert.equal(reasonCodeOf((await check()).outcome), 'identity_denied');
});

test('an identity that was withdrawn stops Checks until there is one again', async () => {
  const snapshots = snapshotHolder(trust.snapshot);
  const checker = checkerWith(trust, { snapshots });
  snapshots.set({ ...emptySnapshot, version: 2 });
  assert.equal(
    reasonCodeOf((await checker.check(onTheWire(getRequest()), neverAborted)).outcome),
    'not_ready',
  );
  snapshots.set({ ...trust.snapshot, version: 3 });
  assert.equal((await checker.check(onTheWire(getRequest()), neverAborted)).outcome.kind, 'allowed');
});

test('whatever a CheckRequest holds, a policy that allows nothing is never got around', async () => {
  const anything = fc.anything({ maxDepth: 4, withBigInt: true, withNullPrototype: true });
  const member = fc.oneof(anything, fc.constantFrom('', web, '/a?b=c', 'application/json'));
  const message = fc.record(
    {
      attributes: fc.oneof(
        anything,
        fc.record(
          {
            source: fc.oneof(
              anything,
              fc.record({ principal: member, certificate: member, address: anything }),
            ),
            request: fc.oneof(
              anything,
              fc.record({
                time: anything,
                http: fc.record(
                  {
                    path: member,
                    headers: fc.oneof(
                      anything,
                      fc.record({ 'content-type': member, 'content-length': member }),
                    ),
                    body: fc.oneof(member, fc.json()),
                    headerMap: anything,
                    size: anything,
                  },
                  { requiredKeys: [] },
                ),
              }),
            ),
            metadataContext: anything,
            contextExtensions: anything,
          },
          { requiredKeys: [] },
        ),
      ),
    },
    { requiredKeys: [] },
  );
  const log = {
    ...silentLogger,
    error: (fields: object) => assert.fail(`a defect: ${JSON.stringify(fields)}`),
  };
  const deny = checkerWith(trust, { engine: answering(false), rules: { requirePeer: false }, log });
  await fc.assert(
    fc.asyncProperty(fc.oneof(message, anything), async (value) => {
      const trace = await deny.check(value, neverAborted);
      assert.ok(trace.outcome.kind === 'refused' || trace.outcome.kind === 'denied');
    }),
    { numRuns: 500 },
  );
});
