import { AppError, LimitError } from '../runtime/errors.ts';
import { createLatest, type Latest } from '../runtime/latest.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';

/** One JWT-SVID: of exactly this identity, for exactly this audience. */
export type JwtSvidKey = Readonly<{ audience: string; spiffeId: SpiffeId }>;

/** A fetch that is under way. */
export type Flight = Readonly<{ result: Promise<JwtSvid>; controller: AbortController }>;

/** What a cache knows of one key. Times are milliseconds since the epoch. */
export type Entry = {
  readonly key: JwtSvidKey;
  readonly held: Latest<JwtSvid | undefined>;
  flight: Flight | undefined;
  watchers: number;
  /** Asked for since the JWT-SVID that is held came. */
  used: boolean;
  /** When the background asks next. */
  renewAt: number;
  /** Until then a get without a JWT-SVID is answered with `error`. */
  refusedUntil: number;
  failures: number;
  /** What the source said last; undefined after a success. */
  error: AppError | undefined;
};

/** The entries of a cache, at most `maxEntries`. */
export interface Entries {
  /**
   * The entry of a key, a new one if need be, in place of the least recently used one when there is no room. Throws
   * AppError for an audience that is none, and LimitError when every entry is being fetched or watched.
   */
  of(key: JwtSvidKey): Entry;
  /** All of them; they may be deleted meanwhile. */
  all(): Iterable<Entry>;
  delete(entry: Entry): void;
}

const maxAudienceLength = 1024;

export function createEntries(maxEntries: number, now: () => number): Entries {
  // In the order of use: the first one was not used for the longest time.
  const entries = new Map<string, Entry>();

  function makeRoom(): void {
    if (entries.size < maxEntries) return;
    for (const [name, { flight, watchers }] of entries) {
      if (flight !== undefined || watchers > 0) continue;
      entries.delete(name);
      return;
    }
    throw new LimitError(`more than ${maxEntries} JWT-SVIDs are being fetched or watched`);
  }

  return Object.freeze({
    of(key: JwtSvidKey) {
      const name = nameOf(key);
      let entry = entries.get(name);
      if (entry === undefined) {
        checkAudience(key.audience);
        makeRoom();
        entry = createEntry(key, now());
      } else {
        entries.delete(name);
      }
      entries.set(name, entry);
      return entry;
    },
    all: () => entries.values(),
    delete: ({ key }: Entry) => {
      entries.delete(nameOf(key));
    },
  } satisfies Entries);
}

function nameOf({ spiffeId, audience }: JwtSvidKey): string {
  return `${spiffeId} ${audience}`;
}

function createEntry({ audience, spiffeId }: JwtSvidKey, now: number): Entry {
  return {
    key: Object.freeze({ audience, spiffeId }),
    held: createLatest<JwtSvid | undefined>(undefined),
    flight: undefined,
    watchers: 0,
    used: false,
    renewAt: now,
    refusedUntil: 0,
    failures: 0,
    error: undefined,
  };
}

function checkAudience(audience: string): void {
  if (audience === '') throw new AppError('invalid_argument', 'a JWT-SVID needs an audience');
  if (audience.length > maxAudienceLength) {
    throw new AppError('invalid_argument', `audience is longer than ${maxAudienceLength} characters`);
  }
}
