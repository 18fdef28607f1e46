import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { buildCheckResponse, isPlain } from '../../../src/extauthz/check-response.ts';
import { createRateLimit } from '../../../src/extauthz/rate-limit.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import {
  api,
  checkerWith,
  createTrust,
  functionEngine,
  getRequest,
  neverAborted,
  onTheWire,
  type Trust,
  web,
} from './harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

const [first, second, third] = ['a', 'b', 'c'].map((name) =>
  parseSpiffeId(`spiffe://example.org/${name}`),
) as [ReturnType<typeof parseSpiffeId>, ReturnType<typeof parseSpiffeId>, ReturnType<typeof parseSpiffeId>];

test('a burst passes, then one for each part of a second, and never more than a burst again', () => {
  let at = 0;
  const limit = createRateLimit({ requestsPerSecond: 2, burst: 3, monotonicNow: () => at });
  const takes = (count: number) => Array.from({ length: count }, () => limit.take(first));
  assert.deepEqual(takes(5), [undefined, undefined, undefined, 1, 1]);
  at += 500;
  assert.deepEqual(takes(2), [undefined, 1]);
  at += 3_600_000;
  assert.deepEqual(takes(4), [undefined, undefined, undefined, 1]);
});

test('each ID has a bucket of its own', () => {
  const limit = createRateLimit({ requestsPerSecond: 1, burst: 1, monotonicNow: () => 0 });
  assert.deepEqual([limit.take(first), limit.take(first), limit.take(second)], [undefined, 1, undefined]);
});

test('without a burst it is that of a second, and at least one', () => {
  const slow = createRateLimit({ requestsPerSecond: 0.1, burst: 0, monotonicNow: () => 0 });
  assert.deepEqual([slow.take(first), slow.take(first)], [undefined, 10]);
  const fast = createRateLimit({ requestsPerSecond: 2, burst: 0, monotonicNow: () => 0 });
  assert.deepEqual([fast.take(first), fast.take(first), fast.take(first)], [undefined, undefined, 1]);
});

test('the table of IDs is bounded; the one that was seen least recently is forgotten', () => {
  const limit = createRateLimit({ requestsPerSecond: 1, burst: 1, maxIds: 2, monotonicNow: () => 0 });
  for (const id of [first, second]) assert.equal(limit.take(id), undefined);
  assert.equal(limit.take(first), 1);
  assert.equal(limit.take(third), undefined);
  assert.equal(limit.take(first), 1, 'one that keeps coming is not forgotten');
  assert.equal(limit.take(second), undefined);
});

test('a request beyond the limit is 429 with Retry-After, under dry run too, and policy is not asked', async () => {
  let asked = 0;
  const checker = checkerWith(trust, {
    engine: functionEngine(() => {
      asked += 1;
      return { kind: 'result', value: true };
    }),
    dryRun: true,
    rateLimit: createRateLimit({ requestsPerSecond: 0.25, burst: 2, monotonicNow: () => 0 }),
  });
  const check = (principal: string) => checker.check(onTheWire(getRequest({ principal })), neverAborted);
  assert.deepEqual(
    (await Promise.all([web, web, web, api].map(check))).map(({ outcome }) => outcome.kind),
    ['allowed', 'allowed', 'refused', 'allowed'],
  );
  assert.equal(asked, 3);
  const { outcome } = await check(web);
  assert.equal(isPlain(outcome), false);
  const response = buildCheckResponse(outcome, 'id', { headerMode: 'overwrite', onFailure: 'deny' });
  assert.equal(response.status?.code, 7);
  assert.equal(response.status?.message, 'rate_limited');
  assert.deepEqual(response.deniedResponse, {
    status: { code: 429 },
    headers: [{ header: { key: 'retry-after', value: '4' } }],
  });
});
