import { randomBytes } from 'node:crypto';
import { lstat, mkdir, open, readdir, readlink, rename, rm, rmdir, stat, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AppError, errnoOf, messageOf } from '../runtime/errors.ts';
import { type SetFile } from './output-set.ts';
import { makeDirectory, requireSafeDirectory } from './safe-directory.ts';

/** The one link that leads to the set in force, named as Kubernetes names it. */
const current = '..data';
const setPrefix = '..svidecar-';
const setPattern = /^\.\.svidecar-[0-9a-f]{16}$/;
const unfinishedLink = /^\.\.link-[0-9a-f]{16}$/;

/** A set that is in force. */
export type WrittenSet = Readonly<{
  /** The name of its directory. */
  name: string;
  /** That of the set that it replaced, of this process or an earlier one; undefined when there was none. */
  previous: string | undefined;
  /** The user that this process runs as. */
  ourUid: number;
}>;

/**
 * Writes the files as one set and puts it in force with a single rename of the link `..data`: the names in the directory
 * are links through it, so they all change at once. The set before stays on disk for those who have just opened it; see
 * `removeOldSets`. When anything fails, what was in force stays, and an AppError says what to do.
 */
export async function writeSet(
  directory: string,
  files: readonly SetFile[],
  modes: Readonly<{ mode: number; secretMode: number }>,
): Promise<WrittenSet> {
  const name = setPrefix + randomBytes(8).toString('hex');
  const path = join(directory, name);
  const ourUid = await makeSet(directory, path);
  try {
    const names = [...new Set(files.map((file) => file.name.split('/', 1)[0] ?? file.name))];
    await requireFreeNames(directory, names);
    await writeFiles(path, files, modes);
    const replaced = await linkTarget(join(directory, current));
    await replaceLink(directory, current, name);
    await linkNames(directory, names);
    await syncDirectory(directory);
    const previous = replaced !== undefined && setPattern.test(replaced) ? replaced : undefined;
    return Object.freeze({ name, previous, ourUid });
  } catch (error) {
    if ((await linkTarget(join(directory, current))) !== name) {
      await rm(path, { recursive: true, force: true }).catch(() => undefined);
    }
    throw error instanceof AppError ? error : outputError(error, directory);
  }
}

/** Makes the empty directory of a set where nobody else can swap it; gives the user that it belongs to. */
async function makeSet(directory: string, path: string): Promise<number> {
  try {
    await makeDirectory(directory);
    await mkdir(path, { mode: 0o700 });
    try {
      const { uid } = await stat(path);
      await requireSafeDirectory(directory, uid);
      return uid;
    } catch (error) {
      // Only when it is empty: by now somebody may have put a directory of others, or a link to one, in its place.
      await rmdir(path).catch(() => undefined);
      throw error;
    }
  } catch (error) {
    throw error instanceof AppError ? error : outputError(error, directory);
  }
}

/** Removes every set but those named, and links that a crash left behind. */
export async function removeOldSets(directory: string, keep: readonly string[]): Promise<void> {
  for (const entry of await readdir(directory)) {
    if (setPattern.test(entry) ? keep.includes(entry) : !unfinishedLink.test(entry)) continue;
    await rm(join(directory, entry), { recursive: true, force: true });
  }
}

/** Takes the set in force away: key and certificates are deleted, the names lead nowhere. */
export async function withdrawSet(directory: string): Promise<void> {
  try {
    await rm(join(directory, current), { force: true });
    await removeOldSets(directory, []);
    await syncDirectory(directory);
  } catch (error) {
    throw outputError(error, directory);
  }
}

async function writeFiles(
  path: string,
  files: readonly SetFile[],
  { mode, secretMode }: Readonly<{ mode: number; secretMode: number }>,
): Promise<void> {
  const directories = new Set([path]);
  for (const { name, content, secret } of files) {
    const file = join(path, name);
    if (!directories.has(dirname(file))) await mkdir(dirname(file));
    directories.add(dirname(file));
    const handle = await open(file, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.chmod(secret ? secretMode : mode);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
  for (const directory of [...directories].reverse()) {
    await chmodDirectory(directory);
    await syncDirectory(directory);
  }
}

/** The names that readers open; what is no longer written loses its name. */
async function linkNames(directory: string, names: readonly string[]): Promise<void> {
  // The certificate, which is the first, comes last: who waits for it finds the rest in place.
  for (const name of [...names].reverse()) {
    const target = `${current}/${name}`;
    if ((await linkTarget(join(directory, name))) !== target) await replaceLink(directory, name, target);
  }
  for (const entry of await readdir(directory)) {
    if (names.includes(entry)) continue;
    if ((await linkTarget(join(directory, entry))) === `${current}/${entry}`)
      await rm(join(directory, entry));
  }
}

async function replaceLink(directory: string, name: string, target: string): Promise<void> {
  const unfinished = join(directory, `..link-${randomBytes(8).toString('hex')}`);
  await symlink(target, unfinished);
  try {
    await rename(unfinished, join(directory, name));
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
}

/** Found out before anything is in force: a directory in the place of a name cannot be replaced by a link. */
async function requireFreeNames(directory: string, names: readonly string[]): Promise<void> {
  for (const name of [current, ...names]) {
    const path = join(directory, name);
    const status = await lstat(path).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (status?.isDirectory() === true) {
      throw new AppError('conflict', `${path} is a directory: remove it, or choose another name`);
    }
  }
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch {
    return undefined;
  }
}

async function chmodDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.chmod(0o755);
  } finally {
    await handle.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A system error in words for the operator. */
export function outputError(cause: unknown, directory: string): AppError {
  const errno = errnoOf(cause) ?? '';
  const remedies: Readonly<Record<string, string>> = {
    ENOSPC: 'no space is left on the device: free some',
    EDQUOT: 'the quota is used up: free some space',
    EFBIG: 'a file is larger than this process may write: raise its limit',
    EACCES: 'permission denied: let the user of the sidecar write there',
    EPERM: 'permission denied: let the user of the sidecar write there',
    EROFS: 'the file system is read-only: mount it writable',
    ENOENT: 'its parent does not exist: create it',
    ENOTDIR: 'a part of its path is no directory',
  };
  const why = remedies[errno] ?? messageOf(cause);
  return new AppError('unavailable', `files cannot be written to ${directory}: ${why}`, { cause });
}
