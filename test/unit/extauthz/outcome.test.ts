import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  lift,
  type Outcome,
  outcomeOf,
  problemOf,
  reasonCodeOf,
  reasonOf,
} from '../../../src/extauthz/outcome.ts';
import { refuse } from '../../../src/extauthz/reason.ts';

const refused: Outcome = { kind: 'refused', refusal: refuse('identity_denied', 'on the list') };
const failed = outcomeOf({ kind: 'failure', reason: 'engine_timeout', message: 'slow' });

test('every outcome tells its code, its reason and what is wrong', () => {
  const cases: [Outcome, string | undefined, string | undefined, string | undefined][] = [
    [outcomeOf({ kind: 'result', value: true }), undefined, undefined, undefined],
    [outcomeOf({ kind: 'result', value: { allow: true, reason: 'owner' } }), undefined, 'owner', undefined],
    [outcomeOf({ kind: 'result', value: false }), 'policy_denied', 'policy_denied', undefined],
    [
      outcomeOf({ kind: 'result', value: { allow: false, reason: 'late' } }),
      'policy_denied',
      'late',
      undefined,
    ],
    [failed, 'engine_timeout', 'engine_timeout', 'slow'],
    [lift(failed), 'engine_timeout', 'engine_timeout', 'slow'],
    [refused, 'identity_denied', 'identity_denied', 'on the list'],
  ];
  for (const [outcome, code, reason, problem] of cases) {
    assert.deepEqual([reasonCodeOf(outcome), reasonOf(outcome), problemOf(outcome)], [code, reason, problem]);
  }
});

test('an undefined decision is a denial, in both ways an engine can say it', () => {
  for (const evaluation of [{ kind: 'undefined' }, { kind: 'result', value: undefined }] as const) {
    const outcome = outcomeOf(evaluation);
    assert.equal(outcome.kind, 'denied');
    assert.equal(reasonCodeOf(outcome), 'undefined_decision');
    assert.equal(typeof problemOf(outcome), 'string');
  }
});

test('only denials and failures can be lifted', () => {
  const allowed = outcomeOf({ kind: 'result', value: true });
  assert.equal(lift(allowed), allowed);
  assert.equal(lift(refused), refused);
  assert.deepEqual(lift(failed), { kind: 'lifted', from: failed });
  assert.deepEqual(lift(lift(failed)), lift(failed));
});
