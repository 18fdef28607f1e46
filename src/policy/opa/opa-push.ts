import { type Sleep, unlessAborted } from '../../runtime/abort.ts';
import { nextDelayMs } from '../../runtime/backoff.ts';
import { AbortedError, messageOf, toAppError, UnavailableError } from '../../runtime/errors.ts';
import { createFileSet, type FileEvent } from '../../runtime/file-watch.ts';
import type { Logger } from '../../runtime/log.ts';
import type { OpaApi } from './opa-api.ts';
import {
  digestOf,
  OpaRefusalError,
  type PushContent,
  type PushItem,
  pushContentOf,
  pushTo,
} from './push-item.ts';
import { createPushMark, type Sight } from './push-mark.ts';

export interface OpaPushMeter {
  /** A file was taken by OPA, or OPA refused it, or could not be asked. */
  pushed(outcome: 'taken' | 'refused' | 'failed'): void;
  /** OPA no longer had what it was given. */
  pushLost(): void;
}

export type OpaPushOptions = Readonly<{
  api: OpaApi;
  items: readonly PushItem[];
  /** Monotonic milliseconds. */
  now: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: OpaPushMeter;
}>;

/** Keeps files in an OPA that has nothing but its memory. */
export interface OpaPush {
  /** Pushes the files, what changes in them, and all of them again to an OPA that has lost them, until `signal` fires. */
  run(signal: AbortSignal): Promise<void>;
  /** True while OPA has a version of every file. */
  ready(): boolean;
  /** What keeps a file, or the newest version of it, from OPA. */
  problem(): string | undefined;
  /** Of the files as OPA has them; empty while that is not settled. */
  revision(): string;
  /** From now on it is in doubt what OPA has: it may have been started anew. */
  doubt(): void;
  /** How many doubts there have been. */
  doubts(): number;
  /** Resolves when it is sure that OPA has the files; rejects with an AppError when it has not or cannot be asked. */
  confirm(signal: AbortSignal): Promise<void>;
}

const tickMs = 100;
/** Rego that is cut short before a rule that denies is Rego, too. */
const quietLooks = 5;
const probeMs = 1_000;
const backoff = Object.freeze({ minMs: 100, maxMs: 5_000 });

/** `wanted` is the newest version that can be pushed, `taken` the last one that OPA took, `held` the digest of what it has. */
type Slot = {
  readonly item: PushItem;
  wanted?: PushContent;
  taken?: PushContent;
  held?: string | undefined;
  fault?: string | undefined;
};

export function createOpaPush(options: OpaPushOptions): OpaPush {
  const { api, items, now, sleep, random, log, meter } = options;
  const { url } = api;
  const mark = createPushMark(api);
  const slots: readonly Slot[] = items.map((item) => ({ item, fault: `${item.file} is not read yet` }));
  const files = createFileSet({ paths: items.map(({ file }) => file), maxBytes: maxPushBytes, quietLooks });
  /** The revision that OPA is marked with; undefined until it has every file. */
  let held: string | undefined;
  /** Whether the files have been quiet once; before that nothing is pushed and nothing is wrong. */
  let looked = false;
  /** OPA's own bundles as last seen, and as they were before the last round: one in force since may have put pushed files away. */
  let bundlesSeen = '';
  let bundlesHeld = '';
  let pushing = false;
  let refusal: string | undefined;
  let told: string | undefined;
  let doubts = 0;
  let settledDoubts = 0;
  let asking: Promise<void> | undefined;
  let failures = 0;
  let nextPushAt = 0;
  let nextProbeAt = 0;

  const problem = (): string | undefined => slots.find(({ fault }) => fault !== undefined)?.fault ?? refusal;
  const isSure = (): boolean => held !== undefined && settledDoubts >= doubts;
  const isPending = (): boolean =>
    held === undefined ||
    bundlesSeen !== bundlesHeld ||
    slots.some(({ wanted, held: has }) => wanted !== undefined && wanted.digest !== has);

  function read(events: readonly FileEvent[]): void {
    for (const [index, slot] of slots.entries()) {
      try {
        slot.wanted = pushContentOf(slot.item, events[index]);
        slot.fault = undefined;
      } catch (error) {
        slot.fault = messageOf(error);
      }
    }
    refusal = undefined;
    failures = 0;
    nextPushAt = 0;
  }

  function tell(): void {
    const error = problem();
    if (error === told) return;
    told = error;
    if (error === undefined) return;
    const kept = held === undefined ? 'Checks are denied until it is' : 'it keeps what it has';
    log.error({ url, error }, `a file cannot be pushed to OPA; ${kept}`);
  }

  async function put(slot: Slot, content: PushContent, signal: AbortSignal): Promise<void> {
    try {
      await pushTo(api, slot.item, content, signal);
    } catch (error) {
      if (!signal.aborted) meter.pushed(error instanceof OpaRefusalError ? 'refused' : 'failed');
      throw error;
    }
    meter.pushed('taken');
    slot.taken = content;
    slot.held = content.digest;
  }

  /** Resolves with what OPA has to say against the newest version; it has a version then. */
  async function fill(slot: Slot, signal: AbortSignal): Promise<OpaRefusalError | undefined> {
    const { wanted, taken } = slot;
    if (wanted === undefined) throw new UnavailableError(slot.fault ?? 'no content');
    if (wanted.digest === slot.held) return undefined;
    try {
      await put(slot, wanted, signal);
      return undefined;
    } catch (error) {
      if (!(error instanceof OpaRefusalError) || taken === undefined) throw error;
      // One that was started anew gets at least what the one before had.
      if (slot.held === undefined) await put(slot, taken, signal);
      return error;
    }
  }

  async function push(signal: AbortSignal): Promise<void> {
    const before = doubts;
    if (held !== undefined) await ask();
    const { bundles } = await look(held ?? 'none');
    // Nothing counts that an OPA which may be another one took before, or one that has other bundles now.
    const anew = held === undefined || bundles !== bundlesHeld;
    if (anew) for (const slot of slots) slot.held = undefined;
    let refused: OpaRefusalError | undefined;
    for (const slot of slots) {
      const fault = await fill(slot, signal);
      refused ??= fault;
      // What comes behind it may need it; an OPA that has nothing needs all of them.
      if (refused !== undefined && !anew) break;
    }
    const revision = digestOf(
      slots.map(({ item, held: has }) => [item.kind, item.target, has].join(' ')).join('\n'),
    );
    if (doubts !== before) throw new UnavailableError('OPA may have been started anew during the push');
    await mark.put(revision, signal);
    if (held !== revision) log.info({ url, revision, files: items.length }, 'files pushed to OPA');
    held = revision;
    bundlesHeld = bundles;
    settledDoubts = before;
    if (refused !== undefined) throw refused;
  }

  async function ask(): Promise<void> {
    const before = doubts;
    const asked = held;
    if (asked === undefined) throw new UnavailableError(problem() ?? 'OPA does not have its files yet');
    const { marked } = await look(asked);
    if (marked) settledDoubts = Math.max(settledDoubts, before);
    else if (held === asked) lose();
  }

  async function look(revision: string): Promise<Sight> {
    const sight = await mark.look(revision);
    bundlesSeen = sight.bundles;
    return sight;
  }

  function lose(): void {
    held = undefined;
    failures = 0;
    nextPushAt = 0;
    meter.pushLost();
    log.warn(
      { url },
      'OPA has lost the files pushed to it, as when it is started anew; they are pushed again',
    );
  }

  async function tick(signal: AbortSignal): Promise<void> {
    const events = await files.look();
    if (events !== undefined) read(events);
    looked ||= events !== undefined;
    if (!looked) return;
    if (isPending() && now() >= nextPushAt) {
      pushing = true;
      try {
        await push(signal);
        refusal = undefined;
        failures = 0;
      } catch (error) {
        if (signal.aborted) throw new AbortedError();
        // A bundle has put it away and owns its place: OPA decides without it.
        const isGone = error instanceof OpaRefusalError && slots.some(({ held: has }) => has === undefined);
        if (isGone && held !== undefined) lose();
        refusal = messageOf(error);
        nextPushAt = now() + nextDelayMs(backoff, failures, random);
        failures += 1;
      } finally {
        pushing = false;
      }
    } else if (held !== undefined && now() >= nextProbeAt) {
      nextProbeAt = now() + probeMs;
      // Who asks for a decision is told; here it only comes to light early.
      await ask().catch(() => {});
    }
    tell();
  }

  return Object.freeze<OpaPush>({
    async run(signal) {
      while (!signal.aborted) {
        try {
          await tick(signal);
          await sleep(tickMs, signal);
        } catch (error) {
          if (!signal.aborted) throw toAppError(error);
        }
      }
    },
    ready: () => held !== undefined,
    problem,
    revision: () => (pushing ? '' : (held ?? '')),
    doubt() {
      doubts += 1;
    },
    doubts: () => doubts,
    async confirm(signal) {
      while (!isSure()) {
        // One question answers all who wait, within a bound of its own.
        asking ??= ask().finally(() => (asking = undefined));
        await unlessAborted(asking, signal);
      }
    },
  });
}

/** Of one file. */
export const maxPushBytes = 16 * 1024 * 1024;
