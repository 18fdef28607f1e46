import { randomBytes } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A file to be written; a secret one is for its owner only (0600). */
export type OutFile = Readonly<{ name: string; content: Buffer | string; secret: boolean }>;

/**
 * Writes the files into the directory, which is made for the owner only when there is none, and gives their paths. Each
 * file appears whole and with its final mode, or not at all; one that is there already is replaced.
 */
export async function writeFiles(directory: string, files: readonly OutFile[]): Promise<readonly string[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const paths: string[] = [];
  for (const { name, content, secret } of files) {
    const path = join(directory, name);
    const unfinished = `${path}.${randomBytes(6).toString('hex')}`;
    try {
      await writeFile(unfinished, content, { flag: 'wx', mode: secret ? 0o600 : 0o644 });
      await rename(unfinished, path);
    } catch (error) {
      await rm(unfinished, { force: true });
      throw error;
    }
    paths.push(path);
  }
  return paths;
}
