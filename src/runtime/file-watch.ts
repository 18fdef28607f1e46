import { open, stat } from 'node:fs/promises';
import type { Sleep } from './abort.ts';
import { AbortedError, errnoOf, LimitError, MalformedError, messageOf, UnavailableError } from './errors.ts';

/** What a path has come to hold; `mode` has the permission bits of the file. */
export type FileEvent =
  | Readonly<{ kind: 'content'; bytes: Buffer; mode: number }>
  | Readonly<{ kind: 'missing' }>
  | Readonly<{ kind: 'unreadable'; message: string }>;

/** The bytes at `path`; throws UnavailableError, which names the path, when there are none. */
export function contentOf(path: string, event: FileEvent | undefined): Buffer {
  if (event?.kind === 'content') return event.bytes;
  throw new UnavailableError(event?.kind === 'unreadable' ? event.message : `there is no file ${path}`);
}

/** Files that belong together. */
export interface FileSet {
  /**
   * What every path holds, in their order, when something has changed since the last look; else undefined. Also
   * undefined while something changes during the look, so that what is given stood in place all at one time.
   */
  look(): Promise<readonly FileEvent[] | undefined>;
}

/**
 * The files at `paths`, each of at most `maxBytes`. Every look goes by the paths anew, so a file renamed into place and
 * a symbolic link switched (also of a directory above, as Kubernetes does it) are changes.
 */
export function createFileSet({ paths, maxBytes, quietLooks = 0 }: FileSetOptions): FileSet {
  let last: readonly string[] = [];
  let seen: readonly string[] = [];
  let quiet = 0;
  return Object.freeze({
    async look() {
      const before = await Promise.all(paths.map(findFile));
      quiet = sameMarks(before, seen) ? quiet + 1 : 0;
      seen = before.map(markOf);
      if (sameMarks(before, last) || quiet < quietLooks) return undefined;
      const sights = await Promise.all(
        before.map((found, index) => readFound(paths[index] ?? '', found, maxBytes)),
      );
      if (!sameMarks(await Promise.all(paths.map(findFile)), seen)) return undefined;
      // A file that stays unreadable looks changed each time.
      if (sameMarks(sights, last)) return undefined;
      last = sights.map(markOf);
      return sights.map(({ event }) => event);
    },
  });
}

export type FileSetOptions = Readonly<{
  paths: readonly string[];
  maxBytes: number;
  /**
   * So many looks in a row have to find what is new as the look before them did, the first time too. A file that is rewritten in
   * place is empty or cut short for a moment, and much that is cut short still reads well: PEM, YAML, Rego. Absent: none.
   */
  quietLooks?: number;
}>;

export type FileWatchOptions = Readonly<{ path: string; pollMs: number; maxBytes: number; sleep: Sleep }>;

/** Yields what `path` holds now and whenever that changes, until `signal` fires; see FileSet. */
export async function* watchFile(
  { path, pollMs, maxBytes, sleep }: FileWatchOptions,
  signal: AbortSignal,
): AsyncIterable<FileEvent> {
  const files = createFileSet({ paths: [path], maxBytes });
  while (!signal.aborted) {
    const events = await files.look();
    if (events !== undefined) yield* events;
    try {
      await sleep(pollMs, signal);
    } catch (error) {
      if (error instanceof AbortedError) return;
      throw error;
    }
  }
}

/** `mark` differs whenever the file does. */
type Marked = Readonly<{ mark: string }>;
type Found = Marked & Readonly<{ size: number; mode: number } | { error: unknown }>;

async function findFile(path: string): Promise<Found> {
  try {
    const found = await stat(path, { bigint: true });
    if (!found.isFile()) throw new MalformedError('not a regular file');
    const { dev, ino, size, mode, mtimeNs, ctimeNs } = found;
    const mark = [dev, ino, size, mtimeNs, ctimeNs].join(' ');
    return { mark, size: Number(size), mode: Number(mode) & 0o7777 };
  } catch (error) {
    return failed(error);
  }
}

async function readFound(
  path: string,
  found: Found,
  maxBytes: number,
): Promise<Marked & { event: FileEvent }> {
  if ('error' in found) return { mark: found.mark, event: failureEvent(path, found.error) };
  const { mark, size, mode } = found;
  if (size > maxBytes) {
    return { mark, event: { kind: 'unreadable', message: `${path} is larger than ${maxBytes} bytes` } };
  }
  try {
    return { mark, event: { kind: 'content', bytes: await readBounded(path, maxBytes), mode } };
  } catch (error) {
    return { mark: failed(error).mark, event: failureEvent(path, error) };
  }
}

function failureEvent(path: string, error: unknown): FileEvent {
  const errno = errnoOf(error);
  if (errno === 'ENOENT' || errno === 'ENOTDIR') return { kind: 'missing' };
  const message =
    errno === 'EACCES' || errno === 'EPERM'
      ? `${path} may not be read by this process (${errno}): check owner and mode of the file and of the directories above it`
      : `${path} cannot be read: ${messageOf(error)}`;
  return { kind: 'unreadable', message };
}

function failed(error: unknown) {
  return { mark: `failed ${errnoOf(error) ?? 'error'}`, error };
}

function markOf({ mark }: Marked): string {
  return mark;
}

function sameMarks(marked: readonly Marked[], marks: readonly string[]): boolean {
  return marked.length === marks.length && marked.every(({ mark }, index) => mark === marks[index]);
}

/** Bounded, because the size seen before may be outdated. */
async function readBounded(path: string, maxBytes: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const chunks: Buffer[] = [];
    let total = 0;
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(256 * 1024));
      if (bytesRead === 0) return Buffer.concat(chunks);
      total += bytesRead;
      if (total > maxBytes) throw new LimitError(`larger than ${maxBytes} bytes`);
      chunks.push(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}
