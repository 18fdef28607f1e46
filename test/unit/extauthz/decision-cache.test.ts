import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Checker } from '../../../src/extauthz/checker.ts';
import { createDecisionCache } from '../../../src/extauthz/decision-cache.ts';
import type { IdentityRules } from '../../../src/extauthz/identity-rules.ts';
import type { Evaluation } from '../../../src/policy/policy-engine.ts';
import { testNow } from '../../support/ca.ts';
import {
  api,
  checkerWith,
  createTrust,
  functionEngine,
  getRequest,
  identities,
  neverAborted,
  onTheWire,
  snapshotHolder,
  type Trust,
  urlEncodedPem,
  web,
} from './harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

type Setting = {
  at: number;
  revision: string;
  rules: IdentityRules;
  answer: Evaluation;
  asked: number;
  looked: string[];
  snapshots: ReturnType<typeof snapshotHolder>;
};

function setUp(
  cacheKey: readonly string[] | undefined,
  maxEntries = 100,
): { checker: Checker; setting: Setting } {
  const setting: Setting = {
    at: testNow,
    revision: 'r1',
    rules: { requirePeer: true, denied: identities() },
    answer: { kind: 'result', value: true },
    asked: 0,
    looked: [],
    snapshots: snapshotHolder(trust.snapshot),
  };
  const now = () => setting.at;
  const checker = checkerWith(trust, {
    now,
    snapshots: setting.snapshots,
    identityRules: () => setting.rules,
    engine: {
      ...functionEngine(() => {
        setting.asked += 1;
        return setting.answer;
      }),
      revision: () => setting.revision,
    },
    queries: [{ match: {}, cacheKey }],
    cache: createDecisionCache({
      ttlMs: 10_000,
      maxEntries,
      now,
      meter: { looked: (outcome) => setting.looked.push(outcome) },
    }),
  });
  return { checker, setting };
}

type Request = Parameters<typeof getRequest>[0];
const check = (checker: Checker, request: Request = {}) =>
  checker.check(onTheWire(getRequest(request)), neverAborted);

test('a decision is kept for its time, told under a new decision ID, and counted', async () => {
  const { checker, setting } = setUp(['peer', 'path']);
  const first = await check(checker);
  const second = await check(checker);
  assert.equal(setting.asked, 1);
  assert.deepEqual([first.outcome.kind, second.outcome.kind], ['allowed', 'allowed']);
  assert.notEqual(first.decisionId, second.decisionId);
  assert.equal(second.engineMs, undefined);
  setting.at += 9_999;
  await check(checker);
  assert.equal(setting.asked, 1);
  setting.at += 1;
  await check(checker);
  assert.equal(setting.asked, 2);
  assert.deepEqual(setting.looked, ['miss', 'hit', 'hit', 'miss']);
});

test('without a cache key nothing is looked up or kept, and neither when the engine has no version', async () => {
  const without = setUp(undefined);
  const versionless = setUp(['peer']);
  versionless.setting.revision = '';
  for (const { checker, setting } of [without, versionless]) {
    await check(checker);
    await check(checker);
    assert.equal(setting.asked, 2);
    assert.deepEqual(setting.looked, []);
  }
});

const differences: readonly (readonly [part: string, one: Request, other: Request])[] = [
  ['peer', { principal: web }, { principal: api }],
  ['method', { method: 'GET' }, { method: 'POST' }],
  ['path', { path: '/a' }, { path: '/b' }],
  ['path', { path: '/a?x=1' }, { path: '/a?x=2' }],
  ['host', { host: 'a' }, { host: 'b' }],
  ['context.api', { contextExtensions: { api: 'a' } }, { contextExtensions: { api: 'b' } }],
  ['context.api', { contextExtensions: { api: '' } }, {}],
  ['header.X-Role', { headers: { 'x-role': 'a' } }, { headers: { 'x-role': 'b' } }],
  ['header.x-role', { headers: { 'x-role': '' } }, {}],
  ['body', { body: 'a' }, { body: 'b' }],
];
for (const [part, one, other] of differences) {
  test(`${part} in the key tells ${JSON.stringify(one)} and ${JSON.stringify(other)} apart`, async () => {
    const { checker, setting } = setUp([part]);
    await check(checker, one);
    await check(checker, other);
    assert.equal(setting.asked, 2);
    await check(checker, one);
    await check(checker, other);
    assert.equal(setting.asked, 2);
  });
}

test('raw headers that come to the same text, or are joined to it, are told apart', async () => {
  const { checker, setting } = setUp(['header.X-Role']);
  const ask = (...values: readonly (readonly number[])[]) => {
    const headers = values.map((bytes) => ({ key: 'x-role', rawValue: Buffer.from(bytes) }));
    const { source } = getRequest() ?? {};
    const http = { method: 'GET', path: '/', headerMap: { headers } };
    return checker.check(onTheWire({ source: source ?? null, request: { http } }), neverAborted);
  };
  for (const values of [[[0xff]], [[0xfe]], [[0x61, 0x2c, 0x62]], [[0x61], [0x62]]]) {
    await ask(...values);
    await ask(...values);
  }
  assert.equal(setting.asked, 4);
});

test('what is not in the key makes no difference', async () => {
  const { checker, setting } = setUp(['method']);
  await check(checker, { path: '/a', headers: { a: '1' }, body: 'x' });
  await check(checker, { path: '/b', principal: api });
  assert.equal(setting.asked, 1);
});

test('a new policy, trust snapshot or set of identity rules drops all that is held, for good', async () => {
  const { checker, setting } = setUp(['path']);
  const changes = [
    () => (setting.revision = 'r2'),
    () => setting.snapshots.set({ ...trust.snapshot, version: 2 }),
    () => (setting.rules = { requirePeer: true, denied: identities('spiffe://example.org/other') }),
    () => (setting.revision = 'r1'),
  ];
  await check(checker);
  for (const [index, change] of changes.entries()) {
    change();
    await check(checker);
    await check(checker);
    assert.equal(setting.asked, index + 2);
  }
});

test('an identity that is denied is refused at once, with its decision in the cache', async () => {
  const { checker, setting } = setUp(['path']);
  await check(checker);
  setting.rules = { requirePeer: true, denied: identities(web) };
  const { outcome } = await check(checker);
  assert.equal(outcome.kind === 'refused' && outcome.refusal.reasonCode, 'identity_denied');
});

test('failures and undefined decisions are not kept, denials are', async () => {
  const { checker, setting } = setUp(['path']);
  for (const answer of [
    { kind: 'failure', reason: 'engine_timeout', message: 'slow' },
    { kind: 'undefined' },
  ] as const) {
    setting.answer = answer;
    setting.asked = 0;
    await check(checker);
    await check(checker);
    assert.equal(setting.asked, 2);
  }
  setting.answer = { kind: 'result', value: { allowed: false, http_status: 404 } };
  setting.asked = 0;
  await check(checker);
  const { outcome } = await check(checker);
  assert.equal(setting.asked, 1);
  assert.equal(outcome.kind === 'denied' && outcome.decision.httpStatus, 404);
});

test('a decision that was under way while the policy changed is not kept', async () => {
  const { checker, setting } = setUp(['path']);
  const slow = Promise.withResolvers<Evaluation>();
  setting.answer = slow.promise as unknown as Evaluation;
  const under = check(checker);
  await new Promise((resolve) => setImmediate(resolve));
  setting.revision = 'r2';
  slow.resolve({ kind: 'result', value: true });
  await under;
  setting.answer = { kind: 'result', value: false };
  setting.revision = 'r1';
  assert.equal((await check(checker)).outcome.kind, 'denied');
});

test('a decision ends with the certificate that proved its peer', async () => {
  const { checker, setting } = setUp(['path']);
  const svid = await trust.own.leaf({ uris: [web], notAfter: testNow + 5_000 });
  const certificate = urlEncodedPem(svid.certificate);
  await check(checker, { certificate });
  setting.at += 5_000;
  await check(checker);
  assert.equal(setting.asked, 2, 'another proof of the same peer does not lengthen it');
});

test('a request that cannot be read is refused although its decision is held', async () => {
  const { checker, setting } = setUp(['path']);
  await check(checker);
  const headers = { 'content-type': 'application/json' };
  const { outcome } = await check(checker, { headers, body: '{' });
  assert.equal(outcome.kind === 'refused' && outcome.refusal.reasonCode, 'malformed_request');
  assert.equal(setting.asked, 1);
});

test('no more decisions are kept than there is room for', async () => {
  const { checker, setting } = setUp(['path'], 2);
  for (const path of ['/a', '/b', '/c', '/a']) await check(checker, { path });
  assert.equal(setting.asked, 4);
  await check(checker, { path: '/c' });
  assert.equal(setting.asked, 4);
});
