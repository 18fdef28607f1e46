import type { Sleep } from '../runtime/abort.ts';
import { toAppError, UnavailableError } from '../runtime/errors.ts';
import { type FileEvent, watchFiles } from '../runtime/file-watch.ts';
import { maxBundleBytes } from './bundle.ts';
import type { BundleHandler, BundleSource, BundleVersion } from './bundle-source.ts';
import { parseVerificationKey } from './verification-key.ts';

export type FileBundleOptions = Readonly<{
  name: string;
  file: string;
  /** A public key in PEM, watched like the bundle, which has to be signed by it; absent: bundles are not signed. */
  verificationKey?: string | undefined;
  sleep: Sleep;
}>;

const pollMs = 250;

/** A bundle in a file: a version is whatever file and key hold together, offered whenever one of them changes. */
export function createFileBundleSource(options: FileBundleOptions): BundleSource {
  const { name, file, verificationKey, sleep } = options;
  const paths = verificationKey === undefined ? [file] : [file, verificationKey];
  const watch = { paths, pollMs, maxBytes: maxBundleBytes, sleep };

  function versionOf([bundle, key]: readonly FileEvent[]): BundleVersion {
    return {
      bytes: contentOf(file, bundle),
      key: verificationKey === undefined ? undefined : parseVerificationKey(verificationKey, key),
    };
  }

  async function follow(handler: BundleHandler, signal: AbortSignal): Promise<void> {
    for await (const events of watchFiles(watch, signal)) {
      let version: BundleVersion;
      try {
        version = versionOf(events);
      } catch (error) {
        handler.failed(toAppError(error));
        continue;
      }
      // Refused: there is nothing better to offer until a file changes.
      await handler.take(version).catch(() => {});
    }
  }

  return Object.freeze({ name, location: file, follow });
}

function contentOf(path: string, event: FileEvent | undefined): Buffer {
  if (event?.kind === 'content') return event.bytes;
  throw new UnavailableError(event?.kind === 'unreadable' ? event.message : `${path} does not exist`);
}
