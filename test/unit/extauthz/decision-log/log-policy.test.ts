import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogPolicy } from '../../../../src/extauthz/decision-log/log-policy.ts';
import type { Evaluation, PolicyEngine } from '../../../../src/policy/policy-engine.ts';
import { neverAborted } from '../harness.ts';

const event = { decision_id: '1', input: { pin: 1 }, result: { reason: 'r' }, reason: 'r', peer: 'p' };
const withheld = { decision_id: '1', peer: 'p', erased: ['/input', '/result'] };
const result = (value: unknown): Evaluation => ({ kind: 'result', value });
const failure: Evaluation = { kind: 'failure', reason: 'engine_unavailable', message: 'away' };

function policyOver(
  answer: (path: string) => Evaluation | Promise<Evaluation>,
  has?: (path: string) => boolean,
) {
  const state = { now: 0, withheld: 0, asked: [] as string[] };
  const engine: PolicyEngine = {
    name: 'wasm',
    ready: () => true,
    revision: () => '',
    async evaluate(path) {
      state.asked.push(path);
      return await answer(path);
    },
  };
  const policy = createLogPolicy({
    engine,
    has,
    timeoutMs: 50,
    monotonicNow: () => state.now,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    meter: { decisionWithheld: () => (state.withheld += 1) },
  });
  return { state, apply: (signal = neverAborted) => policy.apply(event, signal) };
}

test('a bundle is asked only for the entry points that it has', async () => {
  const none = policyOver(
    () => failure,
    () => false,
  );
  assert.deepEqual(await none.apply(), event);
  assert.deepEqual(none.state.asked, []);

  const mask = policyOver(
    () => result(['/input/pin']),
    (path) => path === 'system/log/mask',
  );
  assert.deepEqual((await mask.apply())?.['input'], {});
  assert.deepEqual(mask.state.asked, ['system/log/mask']);
});

test('drop drops, and only true does', async () => {
  assert.equal(await policyOver(() => result({ drop: true, mask: [] })).apply(), undefined);
  assert.deepEqual(await policyOver(() => result({ drop: false })).apply(), event);
  assert.deepEqual(await policyOver(() => result({})).apply(), event);
});

for (const [name, answer] of [
  ['fails', () => failure],
  ['throws', () => Promise.reject(new Error('defect'))],
  ['does not answer', () => new Promise<never>(() => {})],
  ['gives a drop that is no boolean', () => result({ drop: 'yes' })],
  ['gives a mask that cannot be carried out', () => result({ mask: ['/elsewhere'] })],
  ['gives no package', () => result(7)],
] as const) {
  test(`a policy that ${name} costs the record its documents, never the masking`, async () => {
    const { state, apply } = policyOver(answer);
    assert.deepEqual(await apply(), withheld);
    assert.equal(state.withheld, 1);
  });
}

test('when time is up the record goes without its documents, at once', async () => {
  const { apply } = policyOver(() => result({}));
  assert.deepEqual(await apply(AbortSignal.abort()), withheld);
});

test('an OPA without the package is not asked for a second, and then again', async () => {
  let answer: Evaluation = { kind: 'undefined' };
  const { state, apply } = policyOver(() => answer);
  assert.deepEqual(await apply(), event);
  answer = result({ mask: ['/input'] });
  state.now = 999;
  assert.deepEqual(await apply(), event);
  state.now = 1_000;
  assert.equal('input' in ((await apply()) ?? {}), false);
  assert.equal('input' in ((await apply()) ?? {}), false);
  assert.equal(state.asked.length, 3);
});

test('an OPA that had no such package when it was last heard masks nothing while it is away', async () => {
  let answer: Evaluation = { kind: 'undefined' };
  const { state, apply } = policyOver(() => answer);
  await apply();
  answer = failure;
  state.now = 5_000;
  assert.deepEqual(await apply(), event);
  answer = result({});
  await apply();
  answer = failure;
  assert.deepEqual(await apply(), withheld);
});
