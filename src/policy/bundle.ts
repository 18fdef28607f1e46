import { type KeyObject, subtle } from 'node:crypto';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { LimitError, MalformedError } from '../runtime/errors.ts';
import { verifyBundleSignature } from './bundle-signature.ts';
import { readTar, type TarFile } from './tar.ts';

/** An OPA bundle for engine wasm, as `opa build -t wasm` writes it. */
export type Bundle = Readonly<{
  /** From the manifest; empty when it has none. */
  revision: string;
  /** Parts of `data` that the bundle owns; `''` is all of it. */
  roots: readonly string[];
  module: WebAssembly.Module;
  /** JSON text of the base document. */
  data: Uint8Array<ArrayBuffer>;
  /** SHA-256 over the bundle file, in hex: equal bytes, equal decisions. */
  digest: string;
}>;

/** Bound on the file, and on what it unpacks to. */
export const maxBundleBytes = 64 * 1024 * 1024;
const maxUnpackedBytes = 256 * 1024 * 1024;
const maxDataBytes = 64 * 1024 * 1024;

const unzip = promisify(gunzip);

/**
 * Reads a bundle and compiles its policy. Throws MalformedError or LimitError that says what is wrong; whether the
 * policy also loads (its data is JSON, its built-ins are known) shows only in a worker. With `key` the bundle has to be
 * signed by it; without, it has to be unsigned.
 */
export async function parseBundle(file: Buffer, key?: KeyObject): Promise<Bundle> {
  if (file.length > maxBundleBytes) throw new LimitError(`bundle is larger than ${maxBundleBytes} bytes`);
  const files = readTar(await unpack(file));
  verifyBundleSignature(files, key);
  const find = (path: string): Buffer | undefined => files.find((one) => one.path === path)?.bytes;
  const manifest = parseManifest(find('.manifest'));
  const wasm = find('policy.wasm');
  if (wasm === undefined) {
    throw new MalformedError('bundle has no policy.wasm; build it with opa build -t wasm -e DECISION/PATH');
  }
  refuseOtherData(files);
  const data = find('data.json') ?? Buffer.from('{}');
  if (data.length > maxDataBytes) throw new LimitError(`data.json is larger than ${maxDataBytes} bytes`);
  return Object.freeze({
    ...manifest,
    module: await compile(wasm),
    data: new Uint8Array(data),
    digest: await digestOf(file),
  });
}

async function unpack(file: Buffer): Promise<Buffer> {
  try {
    return await unzip(file, { maxOutputLength: maxUnpackedBytes });
  } catch (error) {
    if (error instanceof RangeError) {
      throw new LimitError(`bundle unpacks to more than ${maxUnpackedBytes} bytes`, { cause: error });
    }
    throw new MalformedError('bundle is not a gzip file, or not a whole one', { cause: error });
  }
}

/** Data in other places would be silently missing from decisions; opa build merges it into one file. */
function refuseOtherData(files: readonly TarFile[]): void {
  const other = files.find(
    ({ path }) => path !== 'data.json' && /(?:^|\/)data\.(?:json|yaml|yml)$/.test(path),
  );
  if (other !== undefined) {
    throw new MalformedError(
      `bundle holds ${JSON.stringify(other.path.slice(0, 200))} beside data.json; opa build merges them`,
    );
  }
}

/** Off the main thread, as everything here that takes time with a large bundle. */
async function digestOf(file: Buffer): Promise<string> {
  return Buffer.from(await subtle.digest('SHA-256', new Uint8Array(file))).toString('hex');
}

async function compile(wasm: Buffer): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(new Uint8Array(wasm));
  } catch (error) {
    throw new MalformedError('policy.wasm is not a WebAssembly module', { cause: error });
  }
}

function parseManifest(bytes: Buffer | undefined): Pick<Bundle, 'revision' | 'roots'> {
  if (bytes === undefined) return { revision: '', roots: Object.freeze(['']) };
  let manifest: unknown;
  try {
    manifest = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new MalformedError('.manifest of the bundle is not JSON', { cause: error });
  }
  if (typeof manifest !== 'object' || manifest === null || Array.isArray(manifest)) {
    throw new MalformedError('.manifest of the bundle is not a JSON object');
  }
  const { revision = '', roots = [''] } = manifest as { revision?: unknown; roots?: unknown };
  if (typeof revision !== 'string' || revision.length > 1024) {
    throw new MalformedError('revision in .manifest is not text of at most 1024 characters');
  }
  if (!Array.isArray(roots) || !roots.every((root) => typeof root === 'string')) {
    throw new MalformedError('roots in .manifest is not a list of texts');
  }
  return { revision, roots: Object.freeze([...roots]) };
}
