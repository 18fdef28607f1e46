import { nextDelayMs } from '../../runtime/backoff.ts';

/** How often a bundle service is asked; `minMs` is not more than `maxMs`. */
export type Polling = Readonly<{
  minMs: number;
  maxMs: number;
  /** How long the service may hold an answer back until there is something new; undefined: not at all. */
  longPollMs: number | undefined;
}>;

/** What is remembered between two requests. */
export type PollState = Readonly<{
  /** Of the version in force; undefined when the next answer has to be a whole bundle. */
  etag: string | undefined;
  /** False once the service has shown that it does not hold answers back. */
  longPoll: boolean;
  /** In a row. */
  failures: number;
}>;

/** What a request came to; `elapsedMs` is how long the answer took. */
export type PollOutcome =
  | Readonly<{ kind: 'taken'; etag: string | undefined; contentType: string; elapsedMs: number }>
  /** A good answer whose bundle was not activated. */
  | Readonly<{ kind: 'refused'; contentType: string }>
  | Readonly<{ kind: 'unchanged'; elapsedMs: number }>
  | Readonly<{ kind: 'failed' }>;

/** By this type of an answer with a bundle OPA knows a service that holds answers back. */
export const bundleType = 'application/vnd.openpolicyagent.bundles';

const minRetryMs = 100;
/** Between two requests that the service holds back; what it answers sooner than that it did not hold back. */
const longPollGapMs = 1_000;
const maxEtagLength = 1_024;

/** Like OPA, the first request offers to wait: whether the service does so shows only in its answer. */
export const firstPoll: PollState = Object.freeze({ etag: undefined, longPoll: true, failures: 0 });

/** How long the next answer may be held back, in whole seconds; 0: not at all. */
export function heldBackS({ longPoll }: PollState, { longPollMs }: Polling): number {
  return longPoll && longPollMs !== undefined ? Math.ceil(longPollMs / 1_000) : 0;
}

/**
 * The headers of the next request, as OPA sends them (v1/download), but with `deltas` only for a version that they can
 * apply to.
 */
export function pollHeaders(
  state: PollState,
  polling: Polling,
  deltas: boolean,
): Readonly<Record<string, string>> {
  const { etag } = state;
  const waitS = heldBackS(state, polling);
  const modes = deltas && etag !== undefined ? 'modes=snapshot,delta' : 'modes=snapshot';
  return {
    prefer: waitS > 0 ? `${modes};wait=${waitS}` : modes,
    ...(etag === undefined ? {} : { 'if-none-match': etag }),
  };
}

/** What to remember of an outcome, and how long to wait before the next request. `random` gives a number in [0, 1). */
export function nextPoll(
  state: PollState,
  outcome: PollOutcome,
  polling: Polling,
  random: () => number,
): Readonly<{ state: PollState; delayMs: number }> {
  const { minMs, maxMs, longPollMs } = polling;
  if (outcome.kind === 'failed') {
    const delayMs = nextDelayMs({ minMs: minRetryMs, maxMs }, state.failures, random);
    return { state: { ...state, etag: undefined, failures: state.failures + 1 }, delayMs };
  }
  const usualMs = Math.round(minMs + random() * (maxMs - minMs));
  const longPoll = outcome.kind === 'unchanged' ? state.longPoll : outcome.contentType === bundleType;
  if (outcome.kind === 'refused') {
    return { state: { etag: undefined, longPoll, failures: 0 }, delayMs: usualMs };
  }
  const etag = outcome.kind === 'taken' ? usableEtag(outcome.etag) : state.etag;
  const next = { etag, longPoll, failures: 0 };
  // A service that answers at once with nothing new, or with what has no name, would be asked without a pause.
  const isNews = etag !== undefined && etag !== state.etag;
  const waits = longPoll && longPollMs !== undefined && (isNews || outcome.elapsedMs >= longPollGapMs);
  return { state: next, delayMs: waits ? Math.max(0, longPollGapMs - outcome.elapsedMs) : usualMs };
}

function usableEtag(etag: string | undefined): string | undefined {
  return etag === undefined || etag === '' || etag.length > maxEtagLength ? undefined : etag;
}
