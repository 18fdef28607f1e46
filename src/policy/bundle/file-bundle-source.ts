import type { Sleep } from '../../runtime/abort.ts';
import { AbortedError, type ErrorCode, toAppError, UnavailableError } from '../../runtime/errors.ts';
import { createFileSet, type FileEvent } from '../../runtime/file-watch.ts';
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
const looksUntilRetry = 120;
/** Of the machine and not of the bundle: no thread, no memory, no time. */
const passing: readonly ErrorCode[] = ['unavailable', 'timeout', 'internal'];

/**
 * A bundle in a file: a version is whatever file and key hold together, offered whenever one of them changes, and again
 * after half a minute when it could not be judged.
 */
export function createFileBundleSource(options: FileBundleOptions): BundleSource {
  const { name, file, verificationKey, sleep } = options;
  const paths = verificationKey === undefined ? [file] : [file, verificationKey];

  function versionOf([bundle, key]: readonly FileEvent[]): BundleVersion {
    return {
      bytes: contentOf(file, bundle),
      key: verificationKey === undefined ? undefined : parseVerificationKey(verificationKey, key),
      // Who puts a delta in place of a file knows what was there.
      mayBeDelta: true,
    };
  }

  async function offer(handler: BundleHandler, events: readonly FileEvent[]): Promise<'done' | 'again'> {
    let version: BundleVersion;
    try {
      version = versionOf(events);
    } catch (error) {
      handler.failed(toAppError(error));
      return 'done';
    }
    try {
      await handler.take(version);
      return 'done';
    } catch (error) {
      return passing.includes(toAppError(error).code) ? 'again' : 'done';
    }
  }

  async function follow(handler: BundleHandler, signal: AbortSignal): Promise<void> {
    const files = createFileSet({ paths, maxBytes: maxBundleBytes });
    let undecided: readonly FileEvent[] | undefined;
    let looks = 0;
    while (!signal.aborted) {
      const changed = await files.look();
      looks += 1;
      const events = changed ?? (looks >= looksUntilRetry ? undecided : undefined);
      if (events !== undefined) {
        undecided = (await offer(handler, events)) === 'again' ? events : undefined;
        looks = 0;
      }
      try {
        await sleep(pollMs, signal);
      } catch (error) {
        if (error instanceof AbortedError) return;
        throw error;
      }
    }
  }

  return Object.freeze({ name, location: file, follow });
}

function contentOf(path: string, event: FileEvent | undefined): Buffer {
  if (event?.kind === 'content') return event.bytes;
  throw new UnavailableError(event?.kind === 'unreadable' ? event.message : `${path} does not exist`);
}
