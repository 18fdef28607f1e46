import { join } from 'node:path';
import { createKeptFiles } from '../../runtime/kept-files.ts';
import { maxBundleBytes } from './bundle.ts';

/** The last good snapshot of one bundle on disk. */
export interface KeptBundle {
  /** Undefined when there is none. Throws for a file that cannot be read or is too large. */
  load(): Promise<Buffer | undefined>;
  /** Whole or not at all, also when the machine stops in between. */
  save(bytes: Buffer): Promise<void>;
}

const fileName = 'bundle.tar.gz';

/**
 * Keeps the bundle `name` where OPA does: in `persistDir` as `bundles/NAME/bundle.tar.gz`. Rejects unless that directory and
 * those above it up to `persistDir` are ours alone, as createKeptFiles has it.
 */
export async function openKeptBundle(persistDir: string, name: string): Promise<KeptBundle> {
  const bundles = join(persistDir, 'bundles');
  for (const directory of [persistDir, bundles]) await createKeptFiles(directory, 0);
  const files = await createKeptFiles(join(bundles, name), maxBundleBytes);
  return Object.freeze<KeptBundle>({
    load: async () => (await files.load(fileName))?.bytes,
    save: (bytes) => files.save(fileName, bytes),
  });
}
