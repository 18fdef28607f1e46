import { randomUUID } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError, errnoOf, LimitError, messageOf } from '../runtime/errors.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import { decodeBundleText, maxBundleBytes } from './fetch-bundle.ts';

/** The last good bundle of each trust domain on disk, as its endpoint gave it. */
export interface BundleFiles {
  /** Undefined when there is none. Throws for a file that cannot be read or is too large. */
  load(trustDomain: TrustDomain): Promise<Readonly<{ text: string; savedAt: number }> | undefined>;
  /** Whole or not at all, also when the machine stops in between. */
  save(trustDomain: TrustDomain, text: string): Promise<void>;
  remove(trustDomain: TrustDomain): Promise<void>;
}

/**
 * Keeps bundles in `directory`, which is made with mode 0700 when it is missing. Whoever can write there decides who is
 * trusted, so a directory that others own or can write to is refused, and one that we cannot write to as well.
 */
export async function createBundleFiles(directory: string): Promise<BundleFiles> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const ourUid = await uidOfNewFile(directory);
  const { uid, mode } = await stat(directory);
  if ((uid !== ourUid && uid !== 0) || (mode & 0o022) !== 0) {
    throw new AppError(
      'permission_denied',
      `others may write to ${directory}, and so decide whom to trust: make it mode 0700 and owned by uid ${ourUid}`,
    );
  }
  const pathOf = (trustDomain: TrustDomain): string => join(directory, `${trustDomain}.json`);

  return Object.freeze<BundleFiles>({
    async load(trustDomain) {
      try {
        const file = await open(pathOf(trustDomain), 'r');
        try {
          const { size, mtimeMs } = await file.stat();
          if (size > maxBundleBytes) throw new LimitError(`${pathOf(trustDomain)} is larger than 1 MiB`);
          const text = decodeBundleText(await file.readFile(), trustDomain);
          return { text, savedAt: mtimeMs };
        } finally {
          await file.close();
        }
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return undefined;
        throw error;
      }
    },
    async save(trustDomain, text) {
      const path = pathOf(trustDomain);
      const fresh = join(directory, `.${randomUUID()}`);
      try {
        const file = await open(fresh, 'wx', 0o600);
        try {
          await file.writeFile(text);
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(fresh, path);
      } catch (error) {
        await rm(fresh, { force: true });
        throw error;
      }
    },
    remove: (trustDomain) => rm(pathOf(trustDomain), { force: true }),
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
