import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, AppError, toAppError, UnavailableError } from '../runtime/errors.ts';
import { createFileSet, type FileEvent } from '../runtime/file-watch.ts';
import { createLatest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { JwtBundleSet } from '../spiffe/bundle.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import { type FileIdentity, type IdentityFileNames, parseIdentityFiles, pathsOf } from './identity-files.ts';
import type { IdentitySource, WatchEvent } from './identity-source.ts';

export type FilesSourceOptions = Readonly<{
  files: IdentityFileNames;
  /** Milliseconds since the epoch. */
  now: () => number;
  sleep: Sleep;
  log: Logger;
}>;

/** Identity that somebody else writes into files: cert-manager, spiffe-helper, a Kubernetes secret. */
export interface FilesSource extends IdentitySource {
  readonly name: 'files';
  /** Looks at the files until `signal` fires; nothing is read before. */
  run(signal: AbortSignal): Promise<void>;
}

const pollMs = 500;
/** A bundle that is cut short between two certificates is a bundle, in which peers are missing. */
const quietLooks = 1;
/** Of each file: enough for the largest bundle. */
const maxBytes = 4 * 1024 * 1024;

/** `takes` counts the sets taken; `problem` is why what the files hold now is not used. */
type State = Readonly<{
  identity: FileIdentity | undefined;
  takes: number;
  problem: AppError | undefined;
}>;

/** What the files hold now. Throws ConfigError with every problem, each with its key, its file and what to do. */
export async function readIdentityFiles(files: IdentityFileNames, now: number): Promise<FileIdentity> {
  const set = createFileSet({ paths: pathsOf(files), maxBytes });
  for (let attempt = 0; attempt < readAttempts; attempt += 1) {
    const events = await set.look();
    if (events !== undefined) return parseIdentityFiles(files, events, now);
  }
  throw new UnavailableError('identity files change all the time, so that no whole set can be read');
}

const readAttempts = 10;

/**
 * Identity from files, looked at twice a second. A new set is taken only when two looks have found it the same, and only
 * whole (see parseIdentityFiles): while a
 * certificate waits for its key, or a file is missing or broken, the last good set stays and one line says so. A set
 * that only time can mend (a certificate that is not valid yet) is taken when its time has come.
 */
export function createFilesSource({ files, now, sleep, log }: FilesSourceOptions): FilesSource {
  const state = createLatest<State>({ identity: undefined, takes: 0, problem: undefined });
  const warned = new Set<string>();

  function take(events: readonly FileEvent[]): boolean {
    const { identity: held, takes, problem } = state.current();
    try {
      const identity = parseIdentityFiles(files, events, now());
      state.set({ identity, takes: takes + 1, problem: undefined });
      tell(identity);
      return true;
    } catch (error) {
      const fault = toAppError(error);
      const message = fault.message.replaceAll('\n', '; ');
      if (message === problem?.message) return false;
      const fields = { error: message };
      if (held === undefined) log.warn(fields, 'identity files are not usable yet');
      else log.warn(fields, 'identity files are not usable; the last good identity stays');
      state.set({ identity: held, takes, problem: new AppError(fault.code, message, { cause: error }) });
      return false;
    }
  }

  function tell({ x509, warnings }: FileIdentity): void {
    const [{ spiffeId, chain }] = x509.svids;
    log.info({ spiffeId, expiresAt: new Date(chain[0].notAfter).toISOString() }, 'identity files were read');
    for (const warning of warnings) {
      if (!warned.has(warning)) log.warn({ warning }, 'identity files are usable, with a flaw');
    }
    warned.clear();
    for (const warning of warnings) warned.add(warning);
  }

  async function* watchX509(signal: AbortSignal): AsyncIterable<WatchEvent<X509Context>> {
    for await (const step of steps(signal)) {
      yield step.kind === 'failed' ? step : { kind: 'update', value: step.identity.x509 };
    }
  }

  /** Domains come and go with the form of their bundle file. One that lost its JWT bundle is withdrawn first. */
  async function* watchJwtBundles(signal: AbortSignal): AsyncIterable<WatchEvent<JwtBundleSet>> {
    let held: JwtBundleSet = new Map();
    for await (const step of steps(signal)) {
      if (step.kind === 'failed') {
        yield step;
        continue;
      }
      const value = step.identity.jwtBundles;
      if ([...held.keys()].some((trustDomain) => !value.has(trustDomain))) {
        yield {
          kind: 'revoked',
          error: new UnavailableError('the files have fewer JWT bundles than before'),
        };
      }
      held = value;
      if (value.size > 0) yield { kind: 'update', value };
    }
  }

  /** Each set taken once, and each new problem with what came after it. */
  async function* steps(signal: AbortSignal): AsyncIterable<Step> {
    let seen = 0;
    let told: AppError | undefined;
    for await (const { identity, takes, problem } of state.changes(signal)) {
      if (identity !== undefined && takes !== seen) {
        seen = takes;
        yield { kind: 'taken', identity };
      }
      if (problem !== undefined && problem !== told)
        yield { kind: 'failed', error: problem, terminal: false };
      told = problem;
    }
  }

  return Object.freeze({
    name: 'files' as const,
    watchX509,
    watchJwtBundles,
    fetchJwtSvids(): Promise<readonly JwtSvid[]> {
      return Promise.reject(
        new UnavailableError(
          'identity.source files has no JWT-SVIDs, because nobody signs them: use a Workload API for these',
        ),
      );
    },
    async run(signal: AbortSignal): Promise<void> {
      const set = createFileSet({ paths: pathsOf(files), maxBytes, quietLooks });
      let refused: readonly FileEvent[] | undefined;
      try {
        while (!signal.aborted) {
          const events = (await set.look()) ?? refused;
          if (events !== undefined) refused = take(events) ? undefined : events;
          await sleep(pollMs, signal);
        }
      } catch (error) {
        if (!(error instanceof AbortedError)) throw error;
      }
    },
  });
}

type Step =
  | Readonly<{ kind: 'taken'; identity: FileIdentity }>
  | Readonly<{ kind: 'failed'; error: AppError; terminal: boolean }>;
