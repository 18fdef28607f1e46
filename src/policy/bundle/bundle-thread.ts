import type { KeyObject } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { type ErrorCode, toAppError } from '../../runtime/errors.ts';
import { type Bundle, parseBundle } from './bundle.ts';
import { type DataText, mergeBundleData } from './bundle-data.ts';
import type { DataPath } from './roots.ts';

/** One piece of work, for which a thread is started. */
export type BundleJob =
  | Readonly<{ kind: 'parse'; file: Uint8Array; key: KeyObject | undefined; base: Bundle | undefined }>
  | Readonly<{ kind: 'merge'; parts: readonly Readonly<{ roots: readonly DataPath[]; data: DataText }>[] }>;

/** What came of it, the thread's only message. */
export type BundleJobNews =
  | Readonly<{ kind: 'parsed'; bundle: Bundle }>
  | Readonly<{ kind: 'merged'; data: DataText }>
  | Readonly<{ kind: 'failed'; code: ErrorCode; message: string }>;

async function work(job: BundleJob): Promise<BundleJobNews> {
  try {
    if (job.kind === 'merge') return { kind: 'merged', data: mergeBundleData(job.parts) };
    const { file, key, base } = job;
    const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
    return { kind: 'parsed', bundle: await parseBundle(bytes, key, base) };
  } catch (error) {
    const { code, message } = toAppError(error);
    return { kind: 'failed', code, message };
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is about windows
parentPort?.postMessage(await work(workerData as BundleJob));
