import { type Sleep, unlessAborted, withDeadline } from '../runtime/abort.ts';
import { nextDelayMs } from '../runtime/backoff.ts';
import { AbortedError, type AppError, toAppError, UnavailableError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { createEntries, type Entry, type Flight, type JwtSvidKey } from './cache-entries.ts';

/** Asks the identity source; the port that this room consumes (FetchJWTSVID of the Workload API). */
export type JwtSvidFetch = (
  request: Readonly<{ audiences: readonly string[]; spiffeId?: SpiffeId | undefined }>,
  signal: AbortSignal,
) => Promise<readonly JwtSvid[]>;

/** What the cache counts. */
export interface JwtSvidMeter {
  /** One get: answered from the cache, after a fetch, or not at all. */
  requested(result: 'hit' | 'miss' | 'failed'): void;
  /** The source issued a JWT-SVID: the first for its key, or one in place of another. */
  issued(kind: 'first' | 'renewal'): void;
  /** The source did not; `reason` is an AppError's code. */
  failed(reason: AppError['code']): void;
}

export type JwtSvidCacheOptions = Readonly<{
  fetch: JwtSvidFetch;
  /** Milliseconds since the epoch. */
  now: () => number;
  sleep: Sleep;
  /** A number in [0, 1). */
  random: () => number;
  log: Logger;
  meter: JwtSvidMeter;
  /** JWT-SVIDs kept at once; beyond it the least recently used one goes. */
  maxEntries: number;
  /** What PERMISSION_DENIED does to a JWT-SVID that is held and still valid; `drop` when absent. */
  onPermissionDenied?: 'drop' | 'keep';
  /** A source that hangs may not keep a fetch for ever; 10 s when absent. */
  fetchTimeoutMs?: number;
}>;

/** JWT-SVIDs of this workload, each fetched once and renewed before it ends. Never gives one that has expired. */
export interface JwtSvidCache {
  /** Rejects with what the source said, with LimitError when too many fetches wait, or AbortedError. */
  get(key: JwtSvidKey, signal: AbortSignal): Promise<JwtSvid>;
  /**
   * The current one as soon as there is one, then each renewal, and undefined when one that was given has been dropped;
   * conflated. Ends when `signal` fires.
   */
  watch(key: JwtSvidKey, signal: AbortSignal): AsyncIterable<JwtSvid | undefined>;
  /** Lets go of every JWT-SVID of the identities that `isGone` names; who waits for one of them is refused. */
  forget(isGone: (spiffeId: SpiffeId) => boolean): void;
  /**
   * Renews in the background, at half of its life, each JWT-SVID that was used since it was issued or is watched. When
   * that fails the old one serves until it expires, and the source is asked again with a growing delay.
   */
  run(signal: AbortSignal): Promise<void>;
}

const renewalBackoff = Object.freeze({ minMs: 500, maxMs: 30_000 });
/** After a failed first fetch its error is repeated for this long, so that a busy route cannot hammer the source. */
const refusalBackoff = Object.freeze({ minMs: 100, maxMs: 5_000 });
/** Timers stand still while a machine sleeps, so the clock is looked at again at least this often. */
const maxSleepMs = 30_000;
const maxConcurrentRenewals = 8;

export function createJwtSvidCache(options: JwtSvidCacheOptions): JwtSvidCache {
  const { fetch, now, sleep, random, log, meter, maxEntries } = options;
  const { onPermissionDenied = 'drop', fetchTimeoutMs = 10_000 } = options;
  const entries = createEntries(maxEntries, now);
  let wake = new AbortController();
  let renewing = 0;

  function usable(entry: Entry): JwtSvid | undefined {
    const svid = entry.held.current();
    return svid !== undefined && svid.expiresAt > now() ? svid : undefined;
  }

  function markUsed(entry: Entry): void {
    if (entry.used) return;
    entry.used = true;
    wake.abort();
  }

  /** The fetch that is under way for this entry, or a new one: never two at once. */
  function startFlight(entry: Entry): Flight {
    if (entry.flight !== undefined) return entry.flight;
    const controller = new AbortController();
    const result = ask(entry.key, controller.signal).then(
      (svid) => {
        if (controller.signal.aborted) throw forgotten();
        settle(entry, svid);
        return svid;
      },
      (error: unknown) => {
        if (controller.signal.aborted) throw forgotten();
        const failure = toAppError(error);
        fail(entry, failure);
        throw failure;
      },
    );
    // Everybody who waited may have gone.
    result.catch(() => undefined);
    const flight = Object.freeze({ result, controller });
    entry.flight = flight;
    return flight;
  }

  async function ask({ audience, spiffeId }: JwtSvidKey, signal: AbortSignal): Promise<JwtSvid> {
    const svids = await withDeadline(fetchTimeoutMs, signal, (inner) =>
      fetch({ audiences: [audience], spiffeId }, inner),
    );
    const svid = svids.find((one) => one.spiffeId === spiffeId && one.audiences.includes(audience));
    if (svid === undefined) {
      throw new UnavailableError('identity source gave no JWT-SVID of the identity and audience asked for');
    }
    if (svid.expiresAt <= now()) throw new UnavailableError('identity source gave an expired JWT-SVID');
    return svid;
  }

  function settle(entry: Entry, svid: JwtSvid): void {
    const { spiffeId, audience } = entry.key;
    const before = entry.held.current();
    entry.flight = undefined;
    entry.used = false;
    const at = now();
    const issuedAt = Math.min(svid.issuedAt, at);
    const halfLife = issuedAt + (svid.expiresAt - issuedAt) / 2;
    // A source with a cache of its own may repeat a JWT-SVID that is past its half: it is not asked in a loop.
    entry.failures = halfLife <= at ? entry.failures + 1 : 0;
    entry.renewAt = Math.max(halfLife, at + delay(entry));
    if (entry.error !== undefined) log.info({ spiffeId, audience }, 'JWT-SVID is issued again');
    entry.error = undefined;
    if (before?.token !== svid.token) {
      meter.issued(before === undefined ? 'first' : 'renewal');
      entry.held.set(svid);
    }
    wake.abort();
  }

  function delay(entry: Entry): number {
    return entry.failures === 0 ? 0 : nextDelayMs(renewalBackoff, entry.failures - 1, random);
  }

  function fail(entry: Entry, error: AppError): void {
    const { spiffeId, audience } = entry.key;
    entry.flight = undefined;
    meter.failed(error.code);
    const fields = { spiffeId, audience, reason: error.code, error: error.message };
    if (entry.error === undefined) log.warn(fields, 'JWT-SVID is not issued');
    else log.debug(fields, 'JWT-SVID is still not issued');
    entry.error = error;
    entry.failures += 1;
    if (error.code === 'permission_denied' && onPermissionDenied === 'drop') entry.held.set(undefined);
    const attempt = entry.failures - 1;
    entry.renewAt = now() + nextDelayMs(renewalBackoff, attempt, random);
    entry.refusedUntil = now() + nextDelayMs(refusalBackoff, attempt, random);
    wake.abort();
  }

  /** What is due now is started; the time until the next thing is due is returned. */
  function renewDue(): number {
    const at = now();
    let next = at + maxSleepMs;
    for (const entry of entries.all()) {
      if (entry.flight !== undefined) continue;
      const wanted = entry.watchers > 0 || (entry.used && usable(entry) !== undefined);
      if (!wanted) {
        // What the failures were is remembered for a while after the last of them.
        const idle = usable(entry) === undefined && entry.renewAt + maxSleepMs <= at;
        if (idle) entries.delete(entry);
      } else if (entry.renewAt > at) {
        next = Math.min(next, entry.renewAt);
      } else if (renewing < maxConcurrentRenewals) {
        renewing += 1;
        void startFlight(entry)
          .result.catch(() => undefined)
          .finally(() => {
            renewing -= 1;
            wake.abort();
          });
      }
    }
    return next - at;
  }

  return Object.freeze({
    async get(key: JwtSvidKey, signal: AbortSignal) {
      if (signal.aborted) throw new AbortedError();
      const entry = entries.of(key);
      const svid = usable(entry);
      if (svid !== undefined) {
        meter.requested('hit');
        markUsed(entry);
        return svid;
      }
      try {
        if (entry.flight === undefined && entry.error !== undefined && entry.refusedUntil > now()) {
          throw entry.error;
        }
        const fresh = await unlessAborted(startFlight(entry).result, signal);
        markUsed(entry);
        meter.requested('miss');
        return fresh;
      } catch (error) {
        meter.requested('failed');
        throw error;
      }
    },
    async *watch(key: JwtSvidKey, signal: AbortSignal) {
      const entry = entries.of(key);
      entry.watchers += 1;
      try {
        if (usable(entry) === undefined && entry.flight === undefined) entry.renewAt = now();
        wake.abort();
        let given = false;
        for await (const svid of entry.held.changes(signal)) {
          if (svid === undefined ? !given : svid.expiresAt <= now()) continue;
          given = svid !== undefined;
          yield svid;
        }
      } finally {
        entry.watchers -= 1;
      }
    },
    forget(isGone: (spiffeId: SpiffeId) => boolean) {
      for (const entry of entries.all()) {
        if (!isGone(entry.key.spiffeId)) continue;
        entry.flight?.controller.abort();
        entry.flight = undefined;
        entry.held.set(undefined);
        if (entry.watchers === 0) entries.delete(entry);
        else entry.renewAt = now() + nextDelayMs(renewalBackoff, entry.failures, random);
      }
      wake.abort();
    },
    async run(signal: AbortSignal) {
      try {
        while (!signal.aborted) {
          wake = new AbortController();
          const waitMs = renewDue();
          await sleep(waitMs, AbortSignal.any([signal, wake.signal])).catch((error: unknown) => {
            if (!(error instanceof AbortedError)) throw error;
          });
        }
      } finally {
        for (const { flight } of entries.all()) flight?.controller.abort();
      }
    },
  } satisfies JwtSvidCache);
}

function forgotten(): AppError {
  return new UnavailableError('identity was dropped while its JWT-SVID was fetched');
}
