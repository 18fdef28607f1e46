import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { QuerySpec } from '../../../../src/policy/query-map.ts';
import {
  api,
  type CheckerParts,
  checkOnce,
  createTrust,
  getRequest,
  type Trust,
  tcpConnection,
  urlEncodedPem,
  web,
} from '../harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

async function inputOf(parts: CheckerParts, attributes = getRequest()): Promise<Record<string, unknown>> {
  const trace = await checkOnce(trust, parts, attributes);
  return JSON.parse(JSON.stringify(trace.input)) as Record<string, unknown>;
}

const spiffe = {
  source: { id: web, trust_domain: 'example.org', path: '/service/web', via: 'mtls', verified: false },
  destination: { id: api, trust_domain: 'example.org', path: '/service/api' },
};

test('spiffe tells both ends, and whether the certificate was verified here', async () => {
  assert.deepEqual((await inputOf({}))['spiffe'], spiffe);
  const certificate = urlEncodedPem((await trust.own.svid(web)).chain[0]);
  const verified = await inputOf({}, getRequest({ certificate }));
  assert.deepEqual(verified['spiffe'], { ...spiffe, source: { ...spiffe.source, verified: true } });
});

test('ends without a SPIFFE ID have none in spiffe', async () => {
  const attributes = getRequest({ principal: 'CN=somebody' });
  const input = await inputOf({ rules: { requirePeer: false } }, attributes);
  assert.deepEqual(input['spiffe'], { ...spiffe, source: { via: 'none', verified: false } });
  assert.equal(input['source_principal'], 'CN=somebody');
});

test('our own SPIFFE ID stands for a destination whose principal is none', async () => {
  const attributes = getRequest();
  assert.ok(attributes?.destination);
  attributes.destination.principal = 'api.example.org';
  assert.deepEqual((await inputOf({}, attributes))['spiffe'], spiffe);
});

test('agentvault: the subject is the peer, everything else comes from the query', async () => {
  const queries: QuerySpec[] = [
    {
      match: { path: '/v1/balances/:owner' },
      input: 'agentvault',
      set: {
        action: 'token.transfer',
        resource: { type: 'token_balance', owner: 'spiffe://example.org/agent/{owner}' },
        subject: { type: 'agent', role: 'standard' },
      },
    },
  ];
  assert.deepEqual(await inputOf({ queries }), {
    subject: { id: web, type: 'agent', role: 'standard' },
    action: 'token.transfer',
    resource: { type: 'token_balance', owner: 'spiffe://example.org/agent/7' },
    spiffe,
  });
});

test('agentvault: without a peer the subject has no ID', async () => {
  const input = await inputOf(
    { defaultInput: 'agentvault', rules: { requirePeer: false } },
    getRequest({ principal: '' }),
  );
  assert.deepEqual(input['subject'], {});
});

test('agentweave: caller, callee and action, with the request beside', async () => {
  const attributes = getRequest({ headers: { 'x-trace': '1' } });
  assert.deepEqual(await inputOf({ defaultInput: 'agentweave' }, attributes), {
    caller_spiffe_id: web,
    callee_spiffe_id: api,
    action: 'get',
    method: 'GET',
    path: '/v1/balances/7?full=1',
    headers: { ':method': 'GET', ':path': '/v1/balances/7?full=1', 'x-trace': '1' },
    spiffe,
  });
});

test("agentweave: the action is the query's, else the route's, else the method", async () => {
  const attributes = getRequest({ contextExtensions: { action: 'process' } });
  const queries: QuerySpec[] = [{ match: { method: ['GET'] }, set: { action: 'search' } }];
  assert.equal((await inputOf({ defaultInput: 'agentweave', queries }, attributes))['action'], 'search');
  assert.equal((await inputOf({ defaultInput: 'agentweave' }, attributes))['action'], 'process');
  assert.equal((await inputOf({ defaultInput: 'agentweave' }))['action'], 'get');
});

test('agentweave: a constant never stands in for a fact that is missing', async () => {
  const queries: QuerySpec[] = [
    { set: { caller_spiffe_id: 'spiffe://example.org/root', method: 'GET', path: '/', headers: {} } },
  ];
  const input = await inputOf(
    { defaultInput: 'agentweave', queries, rules: { requirePeer: false } },
    tcpConnection(''),
  );
  assert.deepEqual(Object.keys(input).sort(), ['callee_spiffe_id', 'spiffe']);
});

test('envoy: constants of the query stand beside the document and never over it', async () => {
  const queries: QuerySpec[] = [
    {
      set: {
        action: 'read',
        attributes: 'forged',
        parsed_body: 'forged',
        source_principal: 'forged',
        version: 0,
      },
    },
  ];
  const input = await inputOf({ queries });
  assert.equal(input['action'], 'read');
  assert.equal(input['source_principal'], web);
  assert.equal(JSON.stringify(input).includes('forged'), false);
});

test('envoy: a query cannot forge members that this request has not', async () => {
  const queries: QuerySpec[] = [
    {
      set: {
        attributes: { source: {} },
        parsed_body: { a: 1 },
        truncated_body: false,
        source_principal: web,
      },
    },
  ];
  const parts = { queries, rules: { requirePeer: false }, body: { parse: false, maxBytes: 1 } };
  assert.deepEqual(Object.keys(await inputOf(parts, null)).sort(), [
    'parsed_path',
    'parsed_query',
    'spiffe',
    'version',
  ]);
});
