import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bundleType,
  firstPoll,
  heldBackS,
  nextPoll,
  type Polling,
  type PollOutcome,
  type PollState,
  pollHeaders,
} from '../../../../src/policy/bundle/bundle-poll.ts';

const polling: Polling = { minMs: 10_000, maxMs: 30_000, longPollMs: undefined };
const patient: Polling = { ...polling, longPollMs: 60_000 };
const half = (): number => 0.5;

function taken(etag: string | undefined, contentType = 'application/gzip', elapsedMs = 5): PollOutcome {
  return { kind: 'taken', etag, contentType, elapsedMs };
}

function after(outcomes: readonly PollOutcome[], how = polling): { state: PollState; delayMs: number } {
  let last = { state: firstPoll, delayMs: 0 };
  for (const outcome of outcomes) last = nextPoll(last.state, outcome, how, half);
  return last;
}

test('nothing held: a snapshot is asked for, unconditionally', () => {
  assert.deepEqual(pollHeaders(firstPoll, polling, true), { prefer: 'modes=snapshot' });
});

test('deltas are asked for only on top of a version that has an ETag', () => {
  const { state } = after([taken('"v1"')]);
  const prefer = (deltas: boolean) => pollHeaders(state, polling, deltas);
  assert.deepEqual(prefer(true), { prefer: 'modes=snapshot,delta', 'if-none-match': '"v1"' });
  assert.deepEqual(prefer(false), { prefer: 'modes=snapshot', 'if-none-match': '"v1"' });
});

test('an ETag is kept while nothing changes and forgotten after a failure or a refused bundle', () => {
  const unchanged = { kind: 'unchanged', elapsedMs: 5 } as const;
  assert.equal(after([taken('"v1"'), unchanged, unchanged]).state.etag, '"v1"');
  assert.equal(after([taken('"v1"'), taken('"v2"')]).state.etag, '"v2"');
  assert.equal(after([taken('"v1"'), { kind: 'failed' }]).state.etag, undefined);
  assert.equal(after([taken('"v1"'), { kind: 'refused', contentType: bundleType }]).state.etag, undefined);
  for (const odd of [undefined, '', `"${'x'.repeat(1_100)}"`]) {
    assert.equal(after([taken('"v1"'), taken(odd)]).state.etag, undefined);
  }
});

test('waiting is offered until the service answers with another type, and again after the type', () => {
  const prefer = (outcomes: readonly PollOutcome[]): string | undefined =>
    pollHeaders(after(outcomes, patient).state, patient, true)['prefer'];
  assert.equal(prefer([]), 'modes=snapshot;wait=60');
  assert.equal(prefer([taken('"v1"')]), 'modes=snapshot,delta');
  assert.equal(prefer([taken('"v1"', bundleType)]), 'modes=snapshot,delta;wait=60');
  assert.equal(prefer([taken('"v1"', bundleType), { kind: 'failed' }]), 'modes=snapshot;wait=60');
  assert.equal(prefer([taken('"v1"'), taken('"v2"', bundleType)]), 'modes=snapshot,delta;wait=60');
  assert.equal(heldBackS(firstPoll, { ...patient, longPollMs: 1_500 }), 2);
  assert.equal(heldBackS(firstPoll, polling), 0);
});

test('a service that waits is asked again at once, one that does not at the usual interval', () => {
  const v1 = taken('"v1"', bundleType);
  const usual = 20_000;
  const delay = (...outcomes: PollOutcome[]): number => after(outcomes, patient).delayMs;
  assert.equal(delay(v1), 995);
  assert.equal(delay(v1, { kind: 'unchanged', elapsedMs: 60_000 }), 0);
  assert.equal(delay(v1, taken('"v2"', bundleType, 2_000)), 0);
  assert.equal(delay(v1, { kind: 'unchanged', elapsedMs: 3 }), usual, 'answered at once');
  assert.equal(delay(v1, taken('"v1"', bundleType)), usual, 'the same again');
  assert.equal(delay(taken(undefined, bundleType)), usual, 'no ETag to wait with');
  assert.equal(delay(taken('"v1"')), usual, 'not the type');
  assert.equal(delay(v1, { kind: 'refused', contentType: bundleType }), usual);
});

test('failures back off from 100 ms to the longest interval, and one good answer ends that', () => {
  const failed = { kind: 'failed' } as const;
  const delays = [1, 2, 3, 4, 30].map((count) => after(Array.from({ length: count }, () => failed)).delayMs);
  assert.deepEqual(delays, [60, 110, 210, 410, 15_010]);
  assert.equal(after([failed, failed, taken('"v1"'), failed]).delayMs, 60);
});

const anyOutcome: fc.Arbitrary<PollOutcome> = fc.oneof(
  fc.record({
    kind: fc.constant('taken' as const),
    etag: fc.option(fc.string(), { nil: undefined }),
    contentType: fc.constantFrom(bundleType, 'application/gzip', ''),
    elapsedMs: fc.nat(100_000),
  }),
  fc.record({ kind: fc.constant('refused' as const), contentType: fc.constantFrom(bundleType, '') }),
  fc.record({ kind: fc.constant('unchanged' as const), elapsedMs: fc.nat(100_000) }),
  fc.constant({ kind: 'failed' as const }),
);

test('whatever happens, waits are within bounds, and only good answers leave an ETag', () => {
  fc.assert(
    fc.property(
      fc.array(anyOutcome, { maxLength: 40 }),
      fc.tuple(fc.integer({ min: 1_000, max: 86_400_000 }), fc.integer({ min: 1_000, max: 86_400_000 })),
      fc.option(fc.integer({ min: 1_000, max: 3_600_000 }), { nil: undefined }),
      fc.float({ min: 0, max: Math.fround(0.999), noNaN: true }),
      (outcomes, bounds, longPollMs, dice) => {
        const how = { minMs: Math.min(...bounds), maxMs: Math.max(...bounds), longPollMs };
        let state = firstPoll;
        for (const outcome of outcomes) {
          const next = nextPoll(state, outcome, how, () => dice);
          const lowest = outcome.kind === 'failed' ? 20 : longPollMs === undefined ? how.minMs : 0;
          assert.ok(next.delayMs >= lowest && next.delayMs <= how.maxMs, `${next.delayMs}`);
          if (outcome.kind === 'unchanged') assert.equal(next.state.etag, state.etag);
          else if (outcome.kind !== 'taken') assert.equal(next.state.etag, undefined);
          // Less than a second may pass between requests only if an answer brought news or was held back.
          if (outcome.kind !== 'failed' && next.delayMs < Math.min(1_000, how.minMs)) {
            assert.ok('elapsedMs' in outcome && next.delayMs + outcome.elapsedMs >= 1_000);
          }
          state = next.state;
        }
      },
    ),
  );
});
