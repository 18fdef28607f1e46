import { Worker } from 'node:worker_threads';
import type { Sleep } from '../../runtime/abort.ts';
import {
  AppError,
  LimitError,
  MalformedError,
  TimeoutError,
  UnavailableError,
} from '../../runtime/errors.ts';
import type { Bundle } from './bundle.ts';
import type { DataText } from './bundle-data.ts';
import type { BundleVersion } from './bundle-source.ts';
import type { BundleJob, BundleJobNews } from './bundle-thread.ts';

/** What takes time with a large bundle, off the main thread. */
export interface BundleJobs {
  /** Reads a version; `base` is what a delta changes. Rejects with an AppError that says what is wrong with it. */
  parse(version: BundleVersion, base: Bundle | undefined, signal: AbortSignal): Promise<Bundle>;
  /** The data of several bundles as one document. Rejects with a LimitError if that is too large. */
  merge(bundles: readonly Bundle[], signal: AbortSignal): Promise<DataText>;
}

const timeoutMs = 60_000;
const maxHeapMb = 1024;

// The extension is that of this file: .ts when Node runs the sources, .js in dist/.
const threadUrl = new URL(
  `./bundle-thread${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`,
  import.meta.url,
);

/** Each job in a thread of its own, bounded in time and memory: what a hostile bundle costs ends with it. */
export function createBundleJobs({ sleep }: Readonly<{ sleep: Sleep }>): BundleJobs {
  async function run(job: BundleJob, transfer: readonly ArrayBuffer[], signal: AbortSignal) {
    const thread = new Worker(threadUrl, {
      workerData: job,
      transferList: [...transfer],
      env: {},
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
    });
    thread.stdout.resume();
    thread.stderr.resume();
    const stop = new AbortController();
    const news = new Promise<BundleJobNews>((resolve, reject) => {
      thread.once('message', resolve);
      thread.once('error', (error) => reject(describe(error)));
      thread.once('exit', () => reject(new UnavailableError('bundle thread ended without a result')));
    });
    const late = sleep(timeoutMs, AbortSignal.any([signal, stop.signal])).then((): never => {
      throw new TimeoutError(`bundle could not be read within ${timeoutMs} ms`);
    });
    try {
      const result = await Promise.race([news, late]);
      if (result.kind === 'failed') throw new AppError(result.code, result.message);
      return result;
    } finally {
      stop.abort();
      await thread.terminate();
    }
  }

  return Object.freeze({
    async parse({ bytes, key, mayBeDelta }: BundleVersion, base: Bundle | undefined, signal: AbortSignal) {
      const file = new Uint8Array(bytes);
      const result = await run({ kind: 'parse', file, key, base }, [file.buffer], signal);
      if (result.kind !== 'parsed') throw new UnavailableError('bundle thread gave another result');
      if (result.bundle.kind === 'delta' && !mayBeDelta)
        throw new MalformedError('delta bundle came without being asked for: what it changes is not known');
      return result.bundle;
    },
    async merge(bundles: readonly Bundle[], signal: AbortSignal) {
      const parts = bundles.map(({ manifest: { roots }, data }) => ({ roots, data }));
      const result = await run({ kind: 'merge', parts }, [], signal);
      if (result.kind !== 'merged') throw new UnavailableError('bundle thread gave another result');
      return result.data;
    },
  });
}

function describe(error: Error): AppError {
  return 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY'
    ? new LimitError(`bundle takes more than ${maxHeapMb} MiB of memory to read`, { cause: error })
    : new UnavailableError('bundle thread failed', { cause: error });
}
