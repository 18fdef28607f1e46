import type { HttpClient } from '../../http/client.ts';
import { unlessAborted } from '../../runtime/abort.ts';
import {
  type AppError,
  LimitError,
  MalformedError,
  toAppError,
  UnavailableError,
} from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/log.ts';
import type { JwtAuthority } from '../../spiffe/bundle.ts';
import { isJsonObject, parseJsonObject } from '../../spiffe/json.ts';
import { parseJwtAuthority } from '../../spiffe/jwk.ts';

/** The signing keys of an issuer outside SPIFFE. */
export interface IssuerKeys {
  /** The keys held, however old up to a day; waits for them only when there are none. Rejects with AppError. */
  current(signal: AbortSignal): Promise<readonly JwtAuthority[]>;
  /** Keys after another look, for a token whose key is not among them; looks at most every 10 s. */
  refreshed(signal: AbortSignal): Promise<readonly JwtAuthority[]>;
}

/** What the keys count. */
export interface IssuerKeysMeter {
  keysFetched(outcome: 'ok' | 'failed'): void;
}

export type IssuerKeysOptions = Readonly<{
  /** A JWK Set (RFC 7517 §5). */
  url: string;
  http: HttpClient;
  /** Milliseconds since the epoch. */
  now: () => number;
  log: Logger;
  meter: IssuerKeysMeter;
}>;

/** Keys older than this are asked for again in the background. */
const freshMs = 5 * 60_000;
/** Keys that could not be renewed for this long are not trusted any more: their issuer may have withdrawn them. */
const staleMs = 24 * 3_600_000;
const unknownKeyCooldownMs = 10_000;
const failureCooldownMs = 2_000;
const timeoutMs = 5_000;
const maxBytes = 256 * 1024;
const maxKeys = 256;

/** Nothing is fetched before the first token needs it; then one fetch at a time, whoever waits. */
export function createIssuerKeys({ url, http, now, log, meter }: IssuerKeysOptions): IssuerKeys {
  let held: Readonly<{ keys: readonly JwtAuthority[]; fetchedAt: number }> | undefined;
  let error: AppError | undefined;
  let triedAt = Number.NEGATIVE_INFINITY;
  let flight: Promise<readonly JwtAuthority[]> | undefined;
  const lifetime = new AbortController().signal;

  const usable = (): readonly JwtAuthority[] | undefined =>
    held !== undefined && now() - held.fetchedAt < staleMs ? held.keys : undefined;
  const isPast = (ms: number): boolean => Math.abs(now() - triedAt) >= ms;

  function refresh(): Promise<readonly JwtAuthority[]> {
    if (flight !== undefined) return flight;
    triedAt = now();
    const result = fetchKeys({ url, http }, lifetime).then(
      (keys) => {
        flight = undefined;
        meter.keysFetched('ok');
        if (error !== undefined) log.info({ url }, 'keys of the issuer are there again');
        error = undefined;
        held = Object.freeze({ keys, fetchedAt: now() });
        return keys;
      },
      (reason: unknown) => {
        flight = undefined;
        meter.keysFetched('failed');
        const failure = toAppError(reason);
        const fields = { url, reason: failure.code, error: failure.message, held: held?.keys.length ?? 0 };
        if (error === undefined)
          log.warn(fields, 'keys of the issuer cannot be fetched; last good ones stay');
        else log.debug(fields, 'keys of the issuer still cannot be fetched');
        error = failure;
        throw failure;
      },
    );
    // Everybody who waited may have gone.
    result.catch(() => undefined);
    flight = result;
    return result;
  }

  return Object.freeze({
    async current(signal: AbortSignal) {
      const keys = usable();
      if (keys !== undefined) {
        const isOld = held !== undefined && now() - held.fetchedAt >= freshMs;
        if (isOld && isPast(unknownKeyCooldownMs)) void refresh();
        return keys;
      }
      if (flight === undefined && error !== undefined && !isPast(failureCooldownMs)) throw error;
      return unlessAborted(refresh(), signal);
    },
    async refreshed(signal: AbortSignal) {
      const keys = usable();
      if (keys === undefined) return unlessAborted(refresh(), signal);
      if (flight === undefined && !isPast(unknownKeyCooldownMs)) return keys;
      // The last good keys still decide when the look fails.
      return unlessAborted(
        refresh().catch(() => keys),
        signal,
      );
    },
  } satisfies IssuerKeys);
}

async function fetchKeys(
  { url, http }: Pick<IssuerKeysOptions, 'url' | 'http'>,
  signal: AbortSignal,
): Promise<readonly JwtAuthority[]> {
  const headers = { accept: 'application/jwk-set+json, application/json' };
  const { status, body } = await http.request({ method: 'GET', url, headers, timeoutMs, maxBytes }, signal);
  if (status !== 200) throw new UnavailableError(`GET ${url}: status ${status} where 200 is expected`);
  return parseIssuerKeys(body.toString('utf8'));
}

/**
 * The keys of a JWK Set that may verify a signature; others are dropped one by one. Throws MalformedError, or LimitError
 * beyond 256 keys.
 */
export function parseIssuerKeys(text: string): readonly JwtAuthority[] {
  const { keys } = parseJsonObject(text, 'JWK Set');
  if (!Array.isArray(keys)) throw new MalformedError('JWK Set has no list of keys');
  if (keys.length > maxKeys) throw new LimitError(`JWK Set has more than ${maxKeys} keys`);
  return Object.freeze(
    keys
      .filter(isJsonObject)
      .filter(({ use }) => use === undefined || use === 'sig')
      .map(parseJwtAuthority)
      .filter((key) => key !== undefined),
  );
}
