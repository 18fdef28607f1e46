import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { createShadow, type Shadow, type ShadowRule } from '../../../src/extauthz/shadow.ts';
import type { Evaluation, PolicyEngine } from '../../../src/policy/policy-engine.ts';
import { compileRequestRules } from '../../../src/policy/request-rules.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import {
  answering,
  checkOnce,
  createTrust,
  functionEngine,
  getRequest,
  identities,
  type Trust,
  web,
} from './harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

type Seen = { counted: string[]; logged: unknown[] };

function shadowOf(
  engine: PolicyEngine,
  rules: readonly ShadowRule[],
  maxConcurrent = 4,
): { shadow: Shadow; seen: Seen } {
  const seen: Seen = { counted: [], logged: [] };
  const shadow = createShadow({
    rules: compileRequestRules(rules, 'ext_authz.shadow'),
    engine,
    timeoutMs: 60_000,
    maxConcurrent,
    log: { ...silentLogger, info: (fields) => seen.logged.push(fields) },
    meter: { shadowed: (outcome) => seen.counted.push(outcome) },
  });
  return { shadow, seen };
}

const everywhere = [{ match: {}, path: 'next/allow' }];

for (const [answer, outcome] of [
  [{ kind: 'result', value: true }, 'same'],
  [{ kind: 'result', value: { allowed: false, reason: 'new rule' } }, 'different'],
  [{ kind: 'undefined' }, 'different'],
  [{ kind: 'failure', reason: 'engine_error', message: 'no such path' }, 'failure'],
] as const satisfies readonly (readonly [Evaluation, string])[]) {
  test(`beside an allow, ${JSON.stringify(answer)} counts as ${outcome}, with the input and path of its own`, async () => {
    const asked: unknown[] = [];
    const { shadow, seen } = shadowOf(
      functionEngine((path, input) => {
        asked.push([path, (input as { spiffe: { source: { id: string } } }).spiffe.source.id]);
        return answer;
      }),
      everywhere,
    );
    await shadow.observe(await checkOnce(trust, {}, getRequest()));
    assert.deepEqual(asked, [['next/allow', web]]);
    assert.deepEqual(seen.counted, [outcome]);
    assert.equal(seen.logged.length, outcome === 'same' ? 0 : 1);
  });
}

test('what does not reach a policy, or fits no rule, has no shadow', async () => {
  const { shadow, seen } = shadowOf(answering(true), [{ match: { method: ['POST'] }, path: 'next/allow' }]);
  await shadow.observe(await checkOnce(trust, {}, getRequest()));
  await shadow.observe(
    await checkOnce(trust, { rules: { denied: identities(web) } }, getRequest({ method: 'POST' })),
  );
  assert.deepEqual(seen.counted, []);
  await shadow.observe(await checkOnce(trust, {}, getRequest({ method: 'POST' })));
  assert.deepEqual(seen.counted, ['same']);
});

test('a denial that dry run lifted is one for the shadow, too', async () => {
  const { shadow, seen } = shadowOf(answering(false), everywhere);
  await shadow.observe(await checkOnce(trust, { engine: answering(false), dryRun: true }, getRequest()));
  assert.deepEqual(seen.counted, ['same']);
});

test('more than there is room for is dropped and counted', async () => {
  const slow = Promise.withResolvers<Evaluation>();
  const { shadow, seen } = shadowOf(
    functionEngine(() => slow.promise),
    everywhere,
    1,
  );
  const trace = await checkOnce(trust, {}, getRequest());
  const first = shadow.observe(trace);
  await shadow.observe(trace);
  assert.deepEqual(seen.counted, ['dropped']);
  slow.resolve({ kind: 'result', value: true });
  await first;
  await shadow.observe(trace);
  assert.deepEqual(seen.counted, ['dropped', 'same', 'same']);
});
