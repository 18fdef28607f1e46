import { createKeptFiles } from '../runtime/kept-files.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import { decodeBundleText, maxBundleBytes } from './fetch-bundle.ts';

/** The last good bundle of each trust domain on disk, as its endpoint gave it. */
export interface BundleFiles {
  /** Undefined when there is none. Throws for a file that cannot be read, is too large or not text. */
  load(trustDomain: TrustDomain): Promise<Readonly<{ text: string; savedAt: number }> | undefined>;
  /** Whole or not at all, also when the machine stops in between. */
  save(trustDomain: TrustDomain, text: string): Promise<void>;
  remove(trustDomain: TrustDomain): Promise<void>;
}

/** Keeps bundles in `directory`, by the rules of createKeptFiles. */
export async function createBundleFiles(directory: string): Promise<BundleFiles> {
  const files = await createKeptFiles(directory, maxBundleBytes);
  const nameOf = (trustDomain: TrustDomain): string => `${trustDomain}.json`;

  return Object.freeze<BundleFiles>({
    async load(trustDomain) {
      const kept = await files.load(nameOf(trustDomain));
      return kept && { text: decodeBundleText(kept.bytes, trustDomain), savedAt: kept.savedAt };
    },
    save: (trustDomain, text) => files.save(nameOf(trustDomain), text),
    remove: (trustDomain) => files.remove(nameOf(trustDomain)),
  });
}
