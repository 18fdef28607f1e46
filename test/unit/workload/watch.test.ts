import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AppError, type ErrorCode, MalformedError } from '../../../src/runtime/errors.ts';
import type { LogFields } from '../../../src/runtime/log.ts';
import type { WatchEvent } from '../../../src/workload/identity-source.ts';
import type { WorkloadFailure } from '../../../src/workload/meter.ts';
import { watch } from '../../../src/workload/watch.ts';

/** One attempt: messages, then how it ends. A number is a good message, `bad` a broken one. */
type Attempt = Readonly<{ messages?: readonly (number | 'bad')[]; error?: ErrorCode }>;

const kinds: Partial<Record<ErrorCode, WorkloadFailure>> = {
  malformed: 'malformed',
  unavailable: 'unavailable',
  permission_denied: 'permission_denied',
  invalid_argument: 'invalid_argument',
  unimplemented: 'unimplemented',
};

/** Plays the attempts with random() = `random`; stops when they are used up. */
async function play(attempts: readonly Attempt[], random = 0.999) {
  const waits: number[] = [];
  const log: string[] = [];
  const meter: string[] = [];
  const events: WatchEvent<number>[] = [];
  const controller = new AbortController();
  const left = [...attempts];
  const note = (level: string) => (fields: LogFields, message: string) => {
    log.push(`${level} ${message}${typeof fields['failure'] === 'string' ? `: ${fields['failure']}` : ''}`);
  };
  const watching = watch<number>(
    {
      rpc: 'fetch_x509_svid',
      async *attempt() {
        const attempt = left.shift();
        for (const message of attempt?.messages ?? []) yield Buffer.from(String(message));
        if (attempt?.error !== undefined) throw new AppError(attempt.error, `it is ${attempt.error}`);
      },
      decode(bytes) {
        if (bytes.toString() === 'bad') throw new MalformedError('it is bad');
        return Number(bytes.toString());
      },
      async classify(error) {
        assert.ok(error instanceof AppError);
        return { kind: kinds[error.code] ?? 'other', error };
      },
      async sleep(ms) {
        waits.push(ms);
        if (left.length === 0) controller.abort();
      },
      random: () => random,
      log: { debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') },
      meter: {
        updated: () => meter.push('updated'),
        failed: (_, failure) => meter.push(failure),
        answered() {},
      },
    },
    controller.signal,
  );
  for await (const event of watching) events.push(event);
  return { waits, log, meter, events, unplayed: left.length };
}

const failing = (count: number) => Array.from({ length: count }, (): Attempt => ({ error: 'unavailable' }));

const kindsOf = (events: readonly WatchEvent<number>[]) =>
  events.map((event) => (event.kind === 'update' ? event.value : event.kind));

describe('watch of a stream of the Workload API', () => {
  it('tells every good message and drops a bad one without ending the stream', async () => {
    const { events, meter } = await play([{ messages: [1, 'bad', 2] }]);
    assert.deepEqual(kindsOf(events), [1, 'failed', 2, 'failed']);
    assert.deepEqual(meter, ['updated', 'malformed', 'updated', 'stream_ended']);
  });

  it('backs off by doubling from 250 ms up to 30 s', async () => {
    const { waits } = await play(failing(12));
    assert.deepEqual(
      waits.map((ms) => Math.round(ms / 250) * 250),
      [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000, 30_000],
    );
  });

  it('spreads its retries and never spins', async () => {
    const low = await play(failing(5), 0);
    assert.deepEqual(low.waits, [50, 50, 50, 50, 50]);
  });

  it('resets the backoff after a good message only', async () => {
    const { waits } = await play([
      { error: 'unavailable' },
      { error: 'unavailable' },
      { messages: ['bad'] },
      { messages: [1] },
      { error: 'unavailable' },
    ]);
    assert.deepEqual(
      waits.map((ms) => Math.round(ms / 250) * 250),
      [250, 500, 1000, 250, 500],
    );
  });

  it('tells PERMISSION_DENIED as revoked, and tries again at a slower pace', async () => {
    const { events, waits } = await play([
      { error: 'permission_denied' },
      { error: 'permission_denied' },
      { messages: [1] },
    ]);
    assert.deepEqual(kindsOf(events), ['revoked', 'revoked', 1, 'failed']);
    assert.deepEqual(
      waits.slice(0, 2).map((ms) => Math.round(ms / 1000) * 1000),
      [1000, 2000],
    );
  });

  for (const error of ['invalid_argument', 'unimplemented'] as const) {
    it(`ends for good on ${error}`, async () => {
      const { events, waits, unplayed, log } = await play([{ error }, { messages: [1] }]);
      assert.equal(events.length, 1);
      assert.deepEqual(
        { ...events[0], error: undefined },
        { kind: 'failed', terminal: true, error: undefined },
      );
      assert.deepEqual([waits, unplayed], [[], 1]);
      assert.deepEqual(log, [`error workload api call given up: ${error}`]);
    });
  }

  it('logs a change of state once and repeats at debug level', async () => {
    const { log } = await play([
      { error: 'unavailable' },
      { error: 'unavailable' },
      { error: 'permission_denied' },
      { messages: [1] },
    ]);
    assert.deepEqual(log, [
      'warn workload api call failed: unavailable',
      'debug workload api call failed again: unavailable',
      'warn workload api call failed: permission_denied',
      'info workload api call works again',
      'warn workload api call failed: stream_ended',
    ]);
  });
});
