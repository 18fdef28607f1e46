import { open, stat } from 'node:fs/promises';
import type { Sleep } from './abort.ts';
import { AbortedError, errnoOf, LimitError, MalformedError, messageOf } from './errors.ts';

/** What a watched path has come to hold. */
export type FileEvent =
  | Readonly<{ kind: 'content'; bytes: Buffer }>
  | Readonly<{ kind: 'missing' }>
  | Readonly<{ kind: 'unreadable'; message: string }>;

export type FileWatchOptions = Readonly<{ path: string; pollMs: number; maxBytes: number; sleep: Sleep }>;

/**
 * Yields what `path` holds now and whenever that changes, until `signal` fires. The path is looked up anew at each
 * poll, so a file renamed into place and a symbolic link switched (also of a directory above, as Kubernetes does it)
 * are changes. A file that changes while it is read is read again at the next poll.
 */
export async function* watchFile(options: FileWatchOptions, signal: AbortSignal): AsyncIterable<FileEvent> {
  let last = '';
  while (!signal.aborted) {
    const { mark, event } = await look(options, last);
    if (event !== undefined) {
      last = mark;
      yield event;
    }
    try {
      await options.sleep(options.pollMs, signal);
    } catch (error) {
      if (error instanceof AbortedError) return;
      throw error;
    }
  }
}

/** Reads the file if it is not as `last` says; no event when it is, or is just being written. */
async function look(options: FileWatchOptions, last: string): Promise<{ mark: string; event?: FileEvent }> {
  try {
    const before = await markOf(options.path);
    if (before.mark === last) return { mark: last };
    if (before.size > options.maxBytes) {
      const message = `${options.path} is larger than ${options.maxBytes} bytes`;
      return { mark: before.mark, event: { kind: 'unreadable', message } };
    }
    const bytes = await readFile(options);
    const after = await markOf(options.path);
    return after.mark === before.mark
      ? { mark: after.mark, event: { kind: 'content', bytes } }
      : { mark: last };
  } catch (error) {
    const errno = errnoOf(error) ?? 'error';
    const mark = `failed ${errno}`;
    if (mark === last) return { mark };
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return { mark, event: { kind: 'missing' } };
    return {
      mark,
      event: { kind: 'unreadable', message: `${options.path} cannot be read: ${messageOf(error)}` },
    };
  }
}

async function markOf(path: string): Promise<{ mark: string; size: number }> {
  const found = await stat(path, { bigint: true });
  if (!found.isFile()) throw new MalformedError('not a regular file');
  const { dev, ino, size, mtimeNs, ctimeNs } = found;
  return { mark: [dev, ino, size, mtimeNs, ctimeNs].join(' '), size: Number(size) };
}

/** Bounded, because the size seen before may be outdated. */
async function readFile({ path, maxBytes }: FileWatchOptions): Promise<Buffer> {
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
