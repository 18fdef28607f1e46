import { createHttpClient, type HttpClient } from '../../http/client.ts';
import type { ServerTrust } from '../../http/server-trust.ts';
import { getRedirected, RefusedAnswerError } from '../../http/verified-get.ts';
import type { Sleep } from '../../runtime/abort.ts';
import { AbortedError, messageOf, toAppError } from '../../runtime/errors.ts';
import { createFileSet, type FileEvent } from '../../runtime/file-watch.ts';
import type { Logger } from '../../runtime/log.ts';
import { readBearerFile } from './bearer-file.ts';
import { maxBundleBytes } from './bundle.ts';
import {
  firstPoll,
  heldBackS,
  nextPoll,
  type Polling,
  type PollOutcome,
  type PollState,
  pollHeaders,
} from './bundle-poll.ts';
import type { BundleHandler, BundleSource } from './bundle-source.ts';
import { type KeptBundle, openKeptBundle } from './kept-bundle.ts';
import { maxKeyBytes, parseVerificationKey } from './verification-key.ts';

export interface BundleServiceMeter {
  /** What a request to the service of a bundle came to. */
  bundleRequested(bundle: string, outcome: 'new' | 'unchanged' | 'failed'): void;
  /** When the service last gave a good answer, in milliseconds since the epoch. */
  bundleAnswered(bundle: string, at: number): void;
}

export type HttpBundleOptions = Readonly<{
  name: string;
  url: string;
  polling: Polling;
  /** How an https service proves who it is, and what we show to it. */
  trust: ServerTrust;
  /** Fulfilled when the service can be asked; what is kept on disk is offered before. */
  ready?: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** A file with a token to show; read for each request. */
  bearerFile?: string | undefined;
  /** A public key in PEM, which the bundle has to be signed by; watched. Absent: bundles are not signed. */
  verificationKey?: string | undefined;
  /** Where the last good snapshot survives a restart. */
  persistDir?: string | undefined;
  /** Bounds one exchange, beyond what the service was allowed to hold back. */
  timeoutMs?: number | undefined;
  /** Milliseconds since the epoch. */
  now: () => number;
  monotonicNow: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: BundleServiceMeter;
}>;

/** A bundle of an HTTP service, and how asking for it goes. */
export interface HttpBundleSource extends BundleSource {
  state(): BundleServiceState;
}

/** Times in milliseconds since the epoch. */
export type BundleServiceState = Readonly<{
  /** Of the version in force; undefined after a failure and when the service gives none. */
  etag: string | undefined;
  requestedAt: number | undefined;
  answeredAt: number | undefined;
}>;

type Following = Readonly<{ handler: BundleHandler; client: HttpClient; kept: KeptBundle | undefined }>;

const exchangeMs = 60_000;
const maxRedirects = 3;

/**
 * A bundle that an HTTP service gives by the protocol of OPA's bundle API, first from disk if it was kept there. Whatever
 * goes wrong, the version before stays and the service is asked again, without ETag. `follow` rejects when `persistDir`
 * cannot be used.
 */
export function createHttpBundleSource(options: HttpBundleOptions): HttpBundleSource {
  const { name, url, polling, trust, bearerFile, verificationKey, persistDir, log, meter } = options;
  const { now, monotonicNow } = options;
  const location = url.replace(/\?.*$/, '');
  const keyFile = createFileSet({
    paths: verificationKey === undefined ? [] : [verificationKey],
    maxBytes: maxKeyBytes,
  });
  let keyEvent: FileEvent | undefined;
  let state: PollState = firstPoll;
  /** Of what is on disk. */
  let keptFile: string | undefined;
  let requestedAt: number | undefined;
  let answeredAt: number | undefined;

  /** A key that has changed has to judge the bundle anew. */
  async function readKey() {
    if (verificationKey === undefined) return undefined;
    const [changed] = (await keyFile.look()) ?? [];
    if (changed !== undefined) {
      keyEvent = changed;
      state = { ...state, etag: undefined };
    }
    return parseVerificationKey(verificationKey, keyEvent);
  }

  async function ask(client: HttpClient, signal: AbortSignal) {
    const headers = pollHeaders(state, polling, verificationKey === undefined);
    const token = bearerFile === undefined ? undefined : await readBearerFile(bearerFile);
    // Without an ETag there is nothing that the service could wait for.
    const heldBackMs = state.etag === undefined ? 0 : heldBackS(state, polling) * 1_000;
    const answer = await getRedirected(
      client,
      {
        url,
        headers: token === undefined ? headers : { ...headers, authorization: `Bearer ${token}` },
        timeoutMs: (options.timeoutMs ?? exchangeMs) + heldBackMs,
        maxBytes: maxBundleBytes,
        maxRedirects,
      },
      signal,
    );
    if (answer.status === 200 || (answer.status === 304 && state.etag !== undefined)) return answer;
    throw new RefusedAnswerError('bad_status', `answered with status ${answer.status}, expected 200`);
  }

  async function poll({ handler, client, kept }: Following, signal: AbortSignal): Promise<PollOutcome> {
    // Without an ETag nobody has said what a delta is to change.
    const mayBeDelta = state.etag !== undefined;
    const startedAt = monotonicNow();
    requestedAt = now();
    let key: Awaited<ReturnType<typeof readKey>>;
    let answer: Awaited<ReturnType<typeof ask>>;
    try {
      key = await readKey();
      answer = await ask(client, signal);
    } catch (error) {
      if (signal.aborted) throw new AbortedError();
      meter.bundleRequested(name, 'failed');
      handler.failed(toAppError(error));
      return { kind: 'failed' };
    }
    const elapsedMs = monotonicNow() - startedAt;
    answeredAt = now();
    meter.bundleAnswered(name, answeredAt);
    meter.bundleRequested(name, answer.status === 304 ? 'unchanged' : 'new');
    if (answer.status === 304) return { kind: 'unchanged', elapsedMs };
    const { etag, 'content-type': contentType = '' } = answer.headers;
    try {
      const taken = await handler.take({ bytes: answer.body, key, mayBeDelta });
      if (taken.kind === 'snapshot') await keep(kept, answer.body, taken.file);
    } catch {
      // The handler has told why.
      return { kind: 'refused', contentType };
    }
    return { kind: 'taken', etag, contentType, elapsedMs };
  }

  async function keep(kept: KeptBundle | undefined, bytes: Buffer, file: string): Promise<void> {
    if (file === keptFile) return;
    try {
      await kept?.save(bytes);
      keptFile = file;
    } catch (error) {
      log.error({ bundle: name, error: messageOf(error) }, 'bundle cannot be kept on disk');
    }
  }

  /** It has to pass the same checks as one of the service. */
  async function offerKept(handler: BundleHandler, kept: KeptBundle, signal: AbortSignal): Promise<void> {
    try {
      const bytes = await kept.load();
      if (bytes === undefined) return;
      keptFile = (await handler.take({ bytes, key: await readKey(), mayBeDelta: false })).file;
    } catch (error) {
      if (signal.aborted) return;
      log.warn({ bundle: name, error: messageOf(error) }, 'bundle on disk cannot be used');
    }
  }

  async function follow(handler: BundleHandler, signal: AbortSignal): Promise<void> {
    const kept = persistDir === undefined ? undefined : await openKeptBundle(persistDir, name);
    if (kept !== undefined) await offerKept(handler, kept, signal);
    // One for all requests: what it knows of the CAs of the system takes long to read.
    const client = createHttpClient({ maxSockets: 1, trust });
    try {
      for (;;) {
        await options.ready?.(signal);
        const outcome = await poll({ handler, client, kept }, signal);
        const next = nextPoll(state, outcome, polling, options.random);
        state = next.state;
        await options.sleep(next.delayMs, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      client.close();
    }
  }

  return Object.freeze<HttpBundleSource>({
    name,
    location,
    follow,
    state: () => Object.freeze({ etag: state.etag, requestedAt, answeredAt }),
  });
}
