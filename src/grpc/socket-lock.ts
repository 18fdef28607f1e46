import { link, lstat, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { sleep } from '../runtime/abort.ts';
import { AppError, errnoOf } from '../runtime/errors.ts';

/** What stands at a path: a socket that someone serves or that nobody does, nothing, or no socket at all. */
export type SocketState = 'live' | 'dead' | 'absent' | 'other';

/** Finds out by connecting, which also works across containers where a process id would mean nothing. */
export async function probeSocket(path: string): Promise<SocketState> {
  try {
    if (!(await lstat(path)).isSocket()) return 'other';
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 'absent';
    throw error;
  }
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve('live');
    });
    socket.once('error', (error) => {
      const errno = errnoOf(error);
      if (errno === 'ECONNREFUSED') resolve('dead');
      else if (errno === 'ENOENT') resolve('absent');
      // A full backlog, or a socket of another type: it is served, if not by the likes of us.
      else if (errno === 'EAGAIN' || errno === 'EPROTOTYPE') resolve('live');
      else if (errno === 'EACCES' || errno === 'EPERM') {
        reject(
          new AppError('permission_denied', `no permission to see whether ${path} is served: remove it`, {
            cause: error,
          }),
        );
      } else reject(error);
    });
  });
}

const pollMs = 20;
const maxPolls = 250;
const maxDepth = 3;

/**
 * Runs `work` while holding the lock file `lock`. The lock is a hard link to `own`, a socket that this process listens
 * on, in the same file system: it is taken atomically, and it is alive exactly as long as its holder. The lock of a
 * dead holder is removed, and to do only that takes a second lock, so that nobody removes a lock just taken.
 * Throws AppError `conflict` when a living holder keeps it for 5 s.
 */
export async function withSocketLock<T>(
  own: string,
  lock: string,
  work: () => Promise<T>,
  depth = 0,
): Promise<T> {
  for (let poll = 0; poll < maxPolls; poll++) {
    if (await tryLink(own, lock)) {
      try {
        return await work();
      } finally {
        await rm(lock, { force: true });
      }
    }
    const state = await probeSocket(lock);
    if (state === 'other' || (state === 'dead' && depth === maxDepth)) {
      throw new AppError('conflict', `${lock} is in the way: remove it`);
    }
    if (state === 'dead') {
      const removeIfDead = async (): Promise<void> => {
        if ((await probeSocket(lock)) === 'dead') await rm(lock, { force: true });
      };
      await withSocketLock(own, `${lock}~`, removeIfDead, depth + 1);
    } else if (state === 'live') {
      await sleep(pollMs, AbortSignal.any([]));
    }
  }
  throw new AppError(
    'conflict',
    `another process keeps the lock ${lock}: is one starting here over and over?`,
  );
}

async function tryLink(own: string, lock: string): Promise<boolean> {
  try {
    await link(own, lock);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}
