import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { HttpClient } from '../../http/client.ts';
import { aborted, type Sleep, withDeadline } from '../../runtime/abort.ts';
import { nextDelayMs } from '../../runtime/backoff.ts';
import { AbortedError, TimeoutError, toAppError } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/log.ts';
import { type DecisionEvent, withoutDocuments } from './decision-log.ts';

/** Why a record never arrived: too many waited, the service did not want it, or the program ended before it took it. */
export type UploadLoss = 'upload_buffer_full' | 'upload_refused' | 'upload_shutdown';

export interface DecisionUploadMeter {
  decisionsSent(count: number): void;
  decisionsLost(reason: UploadLoss, count: number): void;
  /** A record went without input and result, because with them it would have been too large. */
  decisionShortened(): void;
  uploadFailed(): void;
}

export type DecisionUploadOptions = Readonly<{
  /** Where batches are posted, as it stands. */
  url: string;
  http: HttpClient;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: DecisionUploadMeter;
  /** Bounds of what waits, in records and bytes; beyond them the oldest are lost. */
  maxRecords?: number;
  maxBytes?: number;
  /** Bound of one batch, in bytes before compression; also of one record. */
  maxBatchBytes?: number;
  /** How long a batch that is not full waits for more. */
  delayMs?: number;
  timeoutMs?: number;
}>;

export interface DecisionUpload {
  /** Queues a record; `text` is its JSON. Never throws, never waits. */
  add(event: DecisionEvent, text: string): void;
  /** Uploads until `signal` fires, then has `flushMs` milliseconds for the rest. */
  run(signal: AbortSignal, flushMs: number): Promise<void>;
}

const compress = promisify(gzip);
const backoffs = {
  failed: { minMs: 1_000, maxMs: 30_000 },
  refused: { minMs: 50, maxMs: 5_000 },
  flush: { minMs: 100, maxMs: 500 },
} as const;
const maxAnswerBytes = 64 * 1024;
const overheadBytes = 64;
/** Statuses that judge what was sent, not the moment: sending the same again would end the same way. */
const refusals: ReadonlySet<number> = new Set([400, 413, 415, 422]);

type Outcome = 'sent' | 'refused' | 'failed';
type Waiting = Readonly<{ text: string; bytes: number }>;

/**
 * Sends decision records to an HTTP service as OPA does: POST of a JSON array, gzip. A batch that fails is sent again
 * after a growing, jittered delay; meanwhile the newest records are kept within bounds. A batch that the service refuses for
 * its content is halved until the record at fault stands alone and is lost. Every loss is counted.
 */
export function createDecisionUpload(options: DecisionUploadOptions): DecisionUpload {
  const { url, http, sleep, random, log, meter, delayMs = 1_000, timeoutMs = 10_000 } = options;
  const { maxRecords = 10_000, maxBytes = 16 * 1024 * 1024, maxBatchBytes = 512 * 1024 } = options;
  const { origin, pathname } = new URL(url);
  let queue: Waiting[] = [];
  let queuedBytes = 0;
  /** How many at the head of the queue are being sent. */
  let inFlight = 0;
  let batchLimit = maxRecords;
  let failures = 0;
  let wake: (() => void) | undefined;

  const isFull = (): boolean => queuedBytes >= maxBatchBytes || queue.length >= maxRecords;

  function forget(count: number): void {
    for (const { bytes } of queue.slice(0, count)) queuedBytes -= bytes;
    queue = queue.slice(count);
  }

  function push(text: string): void {
    const bytes = Buffer.byteLength(text) + overheadBytes;
    let lost = 0;
    let freed = 0;
    while (
      lost < queue.length &&
      (queue.length - lost + 1 > maxRecords || queuedBytes - freed + bytes > maxBytes)
    ) {
      freed += queue[lost]?.bytes ?? 0;
      lost += 1;
    }
    if (lost > 0) {
      forget(lost);
      // What is being sent may arrive yet: then it is counted as sent, else as lost.
      const settled = Math.min(lost, inFlight);
      inFlight -= settled;
      if (lost > settled) meter.decisionsLost('upload_buffer_full', lost - settled);
    }
    queue.push({ text, bytes });
    queuedBytes += bytes;
    if (isFull()) wake?.();
  }

  function headBatch(): Waiting[] {
    let size = 2;
    const batch: Waiting[] = [];
    for (const waiting of queue) {
      size += waiting.bytes;
      if (batch.length > 0 && (size > maxBatchBytes || batch.length >= batchLimit)) break;
      batch.push(waiting);
    }
    return batch;
  }

  /** One batch from the head of the queue. */
  async function sendBatch(signal: AbortSignal): Promise<Outcome> {
    const batch = headBatch();
    inFlight = batch.length;
    const outcome = await post(batch, signal);
    const held = inFlight;
    inFlight = 0;
    if (outcome === 'sent') {
      forget(held);
      meter.decisionsSent(batch.length);
      batchLimit = maxRecords;
      if (failures > 0) log.info({ url }, 'decision log service takes records again');
      failures = 0;
      return outcome;
    }
    meter.uploadFailed();
    if (batch.length > held) meter.decisionsLost('upload_buffer_full', batch.length - held);
    if (outcome === 'refused') {
      if (batch.length === 1 && held === 1) {
        forget(1);
        meter.decisionsLost('upload_refused', 1);
      }
      batchLimit = batch.length === 1 ? maxRecords : Math.ceil(batch.length / 2);
    }
    return outcome;
  }

  async function post(batch: readonly Waiting[], signal: AbortSignal): Promise<Outcome> {
    try {
      const body = await compress(`[${batch.map(({ text }) => text).join(',')}]`);
      const headers = { 'content-type': 'application/json', 'content-encoding': 'gzip' };
      const { status } = await http.request(
        { method: 'POST', url: origin, path: pathname, headers, body, timeoutMs, maxBytes: maxAnswerBytes },
        signal,
      );
      if (status >= 200 && status < 300) return 'sent';
      note(`it answered HTTP status ${status}`);
      return refusals.has(status) ? 'refused' : 'failed';
    } catch (error) {
      note(toAppError(error).message);
      return 'failed';
    }
  }

  function note(error: string): void {
    failures += 1;
    const fields = { url, error, waiting: queue.length };
    if (failures === 1) log.warn(fields, 'decision log service does not take records: they wait');
    else log.debug(fields, 'decision log service still does not take records');
  }

  /** Until the delay is over or a batch is full; a timer that was not needed is cleared. */
  async function wait(ms: number, signal: AbortSignal): Promise<void> {
    const enough = new AbortController();
    wake = () => enough.abort();
    try {
      await sleep(ms, AbortSignal.any([signal, enough.signal]));
    } catch (error) {
      if (!(error instanceof AbortedError) || signal.aborted) throw error;
    } finally {
      wake = undefined;
    }
  }

  /** Waits end with `signal`; an exchange goes on until `hard` fires, because a service may already have taken it. */
  async function uploadForever(signal: AbortSignal, hard: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (!isFull()) await wait(delayMs / 2 + random() * delayMs, signal);
      while (queue.length > 0) {
        const outcome = await sendBatch(hard);
        if (outcome === 'sent' && !isFull()) break;
        if (outcome !== 'sent') await sleep(nextDelayMs(backoffs[outcome], failures - 1, random), signal);
      }
    }
  }

  async function flush(hard: AbortSignal): Promise<void> {
    failures = 0;
    while (queue.length > 0 && !hard.aborted) {
      const outcome = await sendBatch(hard);
      if (outcome !== 'sent') await sleep(nextDelayMs(backoffs.flush, failures - 1, random), hard);
    }
  }

  return {
    add(event, text) {
      if (Buffer.byteLength(text) <= maxBatchBytes) {
        push(text);
        return;
      }
      meter.decisionShortened();
      push(JSON.stringify(withoutDocuments(event)));
    },
    async run(signal, flushMs) {
      const hard = new AbortController();
      const uploading = uploadForever(signal, hard.signal).catch(ignoreAborted);
      await aborted(signal);
      try {
        await withDeadline(flushMs, new AbortController().signal, async (bounded) => {
          bounded.addEventListener('abort', () => hard.abort(), { once: true });
          await uploading;
          await flush(bounded);
        });
      } catch (error) {
        if (!(error instanceof TimeoutError)) throw error;
      }
      if (queue.length > 0) {
        log.warn({ url, lost: queue.length }, 'decision records were not taken in time');
        meter.decisionsLost('upload_shutdown', queue.length);
      }
      forget(queue.length);
    },
  };
}

function ignoreAborted(error: unknown): void {
  if (!(error instanceof AbortedError)) throw error;
}
