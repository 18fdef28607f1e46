import type { Sleep } from '../runtime/abort.ts';
import { nextDelayMs } from '../runtime/backoff.ts';
import { AbortedError, toAppError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { runTasks } from '../runtime/tasks.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';
import type { SnapshotReader, TrustSnapshot } from '../trust/snapshot.ts';
import { buildSet, type OutputSpec, type SetFile, sameSet } from './output-set.ts';
import { createOutputTokens, type OutputTokens } from './output-tokens.ts';
import { type Kill, sendReloadSignal } from './reload-signal.ts';
import { removeOldSets, withdrawSet, writeSet } from './write-set.ts';

/** What the writer counts. */
export interface OutputMeter {
  /** A set was put into force, could not be, or was taken away. */
  set(outcome: 'written' | 'failed' | 'withdrawn'): void;
  signalled(outcome: 'sent' | 'failed'): void;
}

/** What is told of one directory; times in milliseconds since the epoch. */
export type OutputState = Readonly<{
  directory: string;
  /** When the set in force was written; undefined while this process has none there. */
  writtenAt: number | undefined;
  /** What keeps it from writing; undefined when all is well. */
  problem: string | undefined;
}>;

export type OutputWriterOptions = Readonly<{
  spec: OutputSpec;
  snapshots: SnapshotReader;
  /** The default X509-SVID of a snapshot, expired or not. */
  defaultSvid: (snapshot: TrustSnapshot) => X509Svid | undefined;
  tokens: Pick<JwtSvidCache, 'watch'>;
  kill: Kill;
  now: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: OutputMeter;
}>;

/** Keeps the files of one directory up to date. */
export interface OutputWriter {
  state(): OutputState;
  run(signal: AbortSignal): Promise<void>;
}

/** Two switches are at least this far apart: who opens file after file meets one of them at most. */
const settleMs = 1_000;
/** How long the set before is kept for those who have opened its directory. */
const graceMs = 30_000;
/** How long the first set waits for its JWT-SVIDs, so that it and its signal come once and complete. */
const firstTokensMs = 5_000;
const retry = Object.freeze({ minMs: 1_000, maxMs: 60_000 });
/** Timers stand still while a machine sleeps, so the clock is looked at again at least this often. */
const maxSleepMs = 30_000;

type Force = Readonly<{ name: string; files: readonly SetFile[]; at: number }>;

/**
 * Writes a new set whenever the default X509-SVID, a bundle or a JWT-SVID has changed, then sends the reload signal. What
 * has expired is never written; the set in force stays until there is a better one. An identity that is taken away takes
 * the files along. What goes wrong is logged with its remedy and tried again, and never ends the program.
 */
export function createOutputWriter(options: OutputWriterOptions): OutputWriter {
  const { spec, snapshots, defaultSvid, kill, now, sleep, random, log, meter } = options;
  const { directory } = spec;
  let inForce: Force | undefined;
  let before: string | undefined;
  let identitySince: number | undefined;
  let failures = 0;
  let notBefore = 0;
  let problem: string | undefined;
  let wake = new AbortController();

  function wanted(tokens: OutputTokens): readonly SetFile[] | undefined {
    const snapshot = snapshots.current();
    const svid = defaultSvid(snapshot);
    if (svid === undefined || svid.chain[0].notAfter < now()) return undefined;
    const held = tokens.held(now());
    identitySince ??= now();
    const complete = spec.jwt.every(({ audience }) => held.has(audience));
    if (inForce === undefined && !complete && now() < identitySince + firstTokensMs) return undefined;
    return buildSet(spec, { svid, snapshot, tokens: held });
  }

  async function write(files: readonly SetFile[]): Promise<void> {
    const { name, previous, ourUid } = await writeSet(directory, files, spec);
    before = previous;
    inForce = { name, files, at: now() };
    notBefore = now() + settleMs;
    failures = 0;
    problem = undefined;
    meter.set('written');
    log.info({ directory, files: files.map((file) => file.name) }, 'files written');
    await tell(ourUid);
    await removeOldSets(directory, [name, ...(before === undefined ? [] : [before])]);
  }

  async function tell(ourUid: number): Promise<void> {
    if (spec.signal === undefined) return;
    const { pidFile, name } = spec.signal;
    try {
      await sendReloadSignal(spec.signal, ourUid, kill);
      meter.signalled('sent');
      log.info({ directory, pidFile, signal: name }, 'reload signal sent');
    } catch (error) {
      const { code, message } = toAppError(error);
      meter.signalled('failed');
      const fields = { directory, pidFile, signal: name, code, error: message };
      // A program that is not there yet, or not any more, reads the new files when it starts.
      if (code === 'not_found') log.info(fields, 'nobody to send the reload signal to');
      else log.warn(fields, 'reload signal not sent');
    }
  }

  async function withdraw(): Promise<void> {
    await withdrawSet(directory);
    inForce = undefined;
    before = undefined;
    identitySince = undefined;
    meter.set('withdrawn');
    log.warn({ directory }, 'identity is gone; its files are deleted');
  }

  async function step(tokens: OutputTokens): Promise<void> {
    const svid = defaultSvid(snapshots.current());
    tokens.follow(svid?.spiffeId);
    if (now() < notBefore) return;
    try {
      if (svid === undefined) {
        if (inForce !== undefined) await withdraw();
        return;
      }
      const files = wanted(tokens);
      if (files !== undefined && !(inForce !== undefined && sameSet(inForce.files, files)))
        await write(files);
      else if (inForce !== undefined && before !== undefined && now() >= inForce.at + graceMs) {
        await removeOldSets(directory, [inForce.name]);
        before = undefined;
      }
    } catch (error) {
      fail(error);
    }
  }

  function fail(error: unknown): void {
    const { code, message } = toAppError(error);
    notBefore = now() + nextDelayMs(retry, failures, random);
    failures += 1;
    meter.set('failed');
    const fields = { directory, code, error: message };
    if (message === problem) log.debug(fields, 'files still not written');
    else log.error(fields, 'files not written; those that are there stay');
    problem = message;
  }

  /** Until something may have to be done although nothing changes. */
  function idleMs(): number {
    const due = [
      ...(notBefore > now() ? [notBefore] : []),
      ...(inForce === undefined && identitySince !== undefined ? [identitySince + firstTokensMs] : []),
      ...(inForce !== undefined && before !== undefined ? [inForce.at + graceMs] : []),
    ].filter((at) => at > now());
    return Math.min(maxSleepMs, ...due.map((at) => at - now()));
  }

  async function keepWriting(tokens: OutputTokens, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      wake = new AbortController();
      await step(tokens);
      await sleep(idleMs(), AbortSignal.any([signal, wake.signal])).catch((error: unknown) => {
        if (!(error instanceof AbortedError)) throw error;
      });
    }
  }

  return Object.freeze({
    state: () => ({ directory, writtenAt: inForce?.at, problem }),
    run: (signal: AbortSignal) =>
      runTasks(signal, [
        async (linked) => {
          for await (const _ of snapshots.changes(linked)) wake.abort();
        },
        (linked) => {
          const onChange = (): void => wake.abort();
          const audiences = [...new Set(spec.jwt.map(({ audience }) => audience))];
          const { tokens: cache } = options;
          return keepWriting(createOutputTokens({ audiences, cache, onChange, signal: linked, log }), linked);
        },
      ]),
  });
}
