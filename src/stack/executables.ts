import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { AppError } from '../runtime/errors.ts';

/**
 * The path of the executable `name`: the first of `directories` that holds one (the project's cache before PATH, so that
 * a pinned version wins over whatever the machine has). Undefined when none does.
 */
export async function findExecutable(
  name: string,
  directories: readonly string[],
): Promise<string | undefined> {
  for (const directory of directories) {
    const path = join(directory, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not here, or not ours to run: the next directory may have it.
    }
  }
  return undefined;
}

/** As findExecutable, but a missing one is an error that says where was looked and what to do. */
export async function requireExecutable(
  name: string,
  directories: readonly string[],
  remedy: string,
): Promise<string> {
  const path = await findExecutable(name, directories);
  if (path === undefined) {
    throw new AppError('not_found', `no ${name} in ${directories.join(', ')}: ${remedy}`);
  }
  return path;
}

/** The directories of a PATH variable; relative and empty entries, which depend on the working directory, are dropped. */
export function pathDirectories(path: string | undefined): readonly string[] {
  return (path ?? '').split(delimiter).filter((directory) => directory.startsWith('/'));
}
