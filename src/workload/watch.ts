import type { Sleep } from '../runtime/abort.ts';
import { type BackoffPolicy, nextDelayMs } from '../runtime/backoff.ts';
import { AbortedError, UnavailableError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { Failure } from './failure.ts';
import type { WatchEvent } from './identity-source.ts';
import type { WorkloadMeter, WorkloadRpc } from './meter.ts';

export type WatchOptions<T> = Readonly<{
  rpc: WorkloadRpc;
  /** Opens one stream on a fresh connection; ends or throws when the stream does, and stops when `signal` fires. */
  attempt(signal: AbortSignal): AsyncIterable<Buffer>;
  /** Wire to value; throws AppError. */
  decode(message: Buffer): T;
  classify(error: unknown): Promise<Failure>;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: WorkloadMeter;
}>;

const backoff: BackoffPolicy = { minMs: 250, maxMs: 30_000 };
/** No identity is seldom cured within a second, and each call makes the agent attest this process again. */
const noIdentityBackoff: BackoffPolicy = { minMs: 1_000, maxMs: 10_000 };

/**
 * Keeps one stream of the Workload API up until `signal` fires (Workload API §4): each good message is an `update`, a
 * bad one is dropped whole and the stream goes on. A stream that ends is opened again after a jittered wait; only a
 * good message resets the backoff. INVALID_ARGUMENT and UNIMPLEMENTED end the watch with a terminal `failed`.
 */
export async function* watch<T>(options: WatchOptions<T>, signal: AbortSignal): AsyncIterable<WatchEvent<T>> {
  const { rpc, meter } = options;
  const journal = createJournal(options.log, rpc);
  let failures = 0;
  while (!signal.aborted) {
    let failure: Failure;
    try {
      for await (const message of options.attempt(signal)) {
        const event = await read(options, message);
        if (event.kind === 'update') {
          failures = 0;
          meter.updated(rpc);
          journal.recovered();
        } else {
          meter.failed(rpc, 'malformed');
          journal.failed({ kind: 'malformed', error: event.error });
        }
        yield event;
      }
      failure = streamEnded;
    } catch (error) {
      failure = await options.classify(error);
    }
    if (signal.aborted) return;
    meter.failed(rpc, failure.kind);
    const terminal = failure.kind === 'invalid_argument' || failure.kind === 'unimplemented';
    journal.failed(failure, terminal);
    yield failure.kind === 'permission_denied'
      ? { kind: 'revoked', error: failure.error }
      : { kind: 'failed', error: failure.error, terminal };
    if (terminal) return;
    const policy = failure.kind === 'permission_denied' ? noIdentityBackoff : backoff;
    try {
      await options.sleep(nextDelayMs(policy, failures, options.random), signal);
    } catch (error) {
      if (error instanceof AbortedError) return;
      throw error;
    }
    failures += 1;
  }
}

const streamEnded: Failure = Object.freeze({
  kind: 'stream_ended',
  error: new UnavailableError('workload api ended the stream, as it does when the agent restarts'),
});

type MessageEvent<T> = Exclude<WatchEvent<T>, { kind: 'revoked' }>;

async function read<T>(options: WatchOptions<T>, message: Buffer): Promise<MessageEvent<T>> {
  try {
    return { kind: 'update', value: options.decode(message) };
  } catch (error) {
    return { kind: 'failed', error: (await options.classify(error)).error, terminal: false };
  }
}

/** One line per change of state: the same failure again is told at debug level only. */
function createJournal(log: Logger, rpc: WorkloadRpc) {
  let last: string | undefined;
  return {
    failed({ kind, error }: Failure, terminal = false): void {
      const line = `${kind} ${error.message}`;
      const fields = { rpc, failure: kind, error: error.message };
      if (terminal) log.error(fields, 'workload api call given up');
      else if (line === last) log.debug(fields, 'workload api call failed again');
      else log.warn(fields, 'workload api call failed');
      last = line;
    },
    recovered(): void {
      if (last !== undefined) log.info({ rpc }, 'workload api call works again');
      last = undefined;
    },
  };
}
