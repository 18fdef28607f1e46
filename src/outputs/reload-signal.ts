import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { AppError, errnoOf, messageOf } from '../runtime/errors.ts';

/** The signals that may be sent: those that programs reload, reopen or end on. */
export type ReloadSignalName = 'SIGHUP' | 'SIGUSR1' | 'SIGUSR2' | 'SIGINT' | 'SIGTERM' | 'SIGQUIT';

/** Which process to tell, and how. */
export type ReloadSignal = Readonly<{ pidFile: string; name: ReloadSignalName }>;

/** Sends a signal to one process; throws a system error, as kill(2) does. */
export type Kill = (pid: number, name: ReloadSignalName) => void;

const maxPidFileBytes = 64;
/** PID_MAX_LIMIT of Linux on 64 bits. */
const maxPid = 4_194_304;

/**
 * Signals the process that the pid file names. Throws an AppError: `not_found` when there is no such file or process,
 * `permission_denied` when somebody other than `ourUid` and root could have written the file, since whoever writes it
 * chooses the process that is signalled.
 */
export async function sendReloadSignal(
  { pidFile, name }: ReloadSignal,
  ourUid: number,
  kill: Kill,
): Promise<void> {
  const pid = parsePid(await readPidFile(pidFile, ourUid), pidFile);
  try {
    kill(pid, name);
  } catch (cause) {
    const gone = errnoOf(cause) === 'ESRCH';
    throw new AppError(
      gone ? 'not_found' : 'permission_denied',
      gone
        ? `process ${pid} of ${pidFile} does not run`
        : `process ${pid} of ${pidFile} cannot be signalled (${messageOf(cause)}): run it as the same user`,
      { cause },
    );
  }
}

/** Reads a process ID: a positive decimal number and nothing else but white space. */
export function parsePid(text: string, pidFile: string): number {
  const pid = /^\s*\d{1,7}\s*$/.test(text) ? Number(text) : 0;
  // kill(2): 0 and below would mean whole groups of processes.
  if (pid < 1 || pid > maxPid) throw new AppError('malformed', `${pidFile} does not hold a process ID`);
  return pid;
}

async function readPidFile(path: string, ourUid: number): Promise<string> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((cause: unknown) => {
    const errno = errnoOf(cause);
    if (errno === 'ENOENT') throw new AppError('not_found', `${path} does not exist`, { cause });
    const why = errno === 'ELOOP' ? 'it is a symbolic link' : messageOf(cause);
    throw new AppError('permission_denied', `${path} cannot be read: ${why}`, { cause });
  });
  try {
    const status = await handle.stat();
    if (!status.isFile()) throw new AppError('permission_denied', `${path} is no regular file`);
    if (status.uid !== ourUid && status.uid !== 0) {
      throw new AppError(
        'permission_denied',
        `${path} belongs to uid ${status.uid}: only one of uid ${ourUid} or root is followed`,
      );
    }
    if ((status.mode & 0o022) !== 0) {
      throw new AppError('permission_denied', `${path} may be written by others: chmod go-w it`);
    }
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(maxPidFileBytes), 0, maxPidFileBytes, 0);
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await handle.close();
  }
}
