import { chmod, mkdir, realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AppError, errnoOf } from '../runtime/errors.ts';

/** Makes the directory, for everybody to read, when it is missing; its parent must exist. */
export async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return;
    throw error;
  }
  // Not what the umask makes of it: the files in it are for other users, too.
  await chmod(directory, 0o755);
}

/**
 * Throws `permission_denied` unless only `ourUid` and root can change what the directory, or a directory above it, leads
 * to: anybody else could give readers another certificate. Above it, a sticky directory such as /tmp is fine.
 */
export async function requireSafeDirectory(directory: string, ourUid: number): Promise<void> {
  const real = await realpath(directory);
  for (let path = real; ; path = dirname(path)) {
    const { uid, mode } = await stat(path);
    if (uid !== ourUid && uid !== 0) {
      throw new AppError(
        'permission_denied',
        `${path} belongs to uid ${uid}, who could swap the files: use a directory of uid ${ourUid} or root`,
      );
    }
    const worldWritable = (mode & 0o002) !== 0;
    const sticky = (mode & 0o1000) !== 0;
    if (worldWritable && !(sticky && path !== real)) {
      throw new AppError(
        'permission_denied',
        `everyone may write to ${path} and could swap the files: use another directory, or chmod o-w it`,
      );
    }
    if (path === dirname(path)) return;
  }
}
