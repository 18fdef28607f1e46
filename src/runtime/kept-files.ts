import { randomUUID } from 'node:crypto';
import { constants, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError, errnoOf, LimitError, MalformedError, messageOf } from './errors.ts';

/** Files of ours that outlive the process, by name. */
export interface KeptFiles {
  /** Undefined when there is none. Throws for a file that cannot be read or is too large. */
  load(name: string): Promise<KeptFile | undefined>;
  /** Whole or not at all, also when the machine stops in between; mode 0600. */
  save(name: string, content: string | Uint8Array): Promise<void>;
  remove(name: string): Promise<void>;
}

/** `savedAt` in milliseconds since the epoch. */
export type KeptFile = Readonly<{ bytes: Buffer; savedAt: number }>;

/**
 * Keeps files of at most `maxBytes` in `directory`, which is made with mode 0700 when it is missing. Whoever can write
 * there decides what we believe after a restart, so a directory that others own or can write to is refused, and one that
 * we cannot write to as well.
 */
export async function createKeptFiles(directory: string, maxBytes: number): Promise<KeptFiles> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const ourUid = await uidOfNewFile(directory);
  const { uid, mode } = await stat(directory);
  if ((uid !== ourUid && uid !== 0) || (mode & 0o022) !== 0) {
    throw new AppError(
      'permission_denied',
      `others may write to ${directory}, and so decide what is believed after a restart: make it mode 0700 and owned by uid ${ourUid}`,
    );
  }
  const pathOf = (name: string): string => join(directory, name);

  return Object.freeze<KeptFiles>({
    async load(name) {
      try {
        // Without O_NONBLOCK a FIFO would be waited for, also when the program is to end.
        const file = await open(pathOf(name), constants.O_RDONLY | constants.O_NONBLOCK);
        try {
          const found = await file.stat();
          if (!found.isFile()) throw new MalformedError(`${pathOf(name)} is not a regular file`);
          const { size, mtimeMs } = found;
          if (size > maxBytes) throw new LimitError(`${pathOf(name)} is larger than ${maxBytes} bytes`);
          return Object.freeze({ bytes: await file.readFile(), savedAt: mtimeMs });
        } finally {
          await file.close();
        }
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return undefined;
        throw error;
      }
    },
    async save(name, content) {
      const fresh = join(directory, `.${randomUUID()}`);
      try {
        const file = await open(fresh, 'wx', 0o600);
        try {
          await file.writeFile(content);
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(fresh, pathOf(name));
      } catch (error) {
        await rm(fresh, { force: true });
        throw error;
      }
    },
    remove: (name) => rm(pathOf(name), { force: true }),
  });
}

async function uidOfNewFile(directory: string): Promise<number> {
  const path = join(directory, `.${randomUUID()}`);
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      return (await file.stat()).uid;
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw new AppError('permission_denied', `cannot write to ${directory}: ${messageOf(cause)}`, { cause });
  } finally {
    await rm(path, { force: true });
  }
}
