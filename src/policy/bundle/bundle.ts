import { createHash, type KeyObject } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { loadWasmPolicy } from '../wasm/wasm-policy.ts';
import {
  checkRoots,
  type DataText,
  formatRoots,
  insertDocument,
  insertRoots,
  maxDataBytes,
  writeData,
} from './bundle-data.ts';
import { type Manifest, parseManifest } from './bundle-manifest.ts';
import { patchData } from './bundle-patch.ts';
import { verifyBundleSignature } from './bundle-signature.ts';
import { checkJson, createJsonBudget, maxDepth } from './json-text.ts';
import { emptyObject, jsonText } from './json-tree.ts';
import { type DataPath, formatPath, rootsContain } from './roots.ts';
import { readTar, type TarFile } from './tar.ts';

/** One version of an OPA bundle, read and found good by itself. */
export type Bundle = Readonly<{
  kind: 'snapshot' | 'delta';
  manifest: Manifest;
  /** Compiled policies; none in a bundle of data. */
  modules: readonly BundleModule[];
  data: DataText;
  /** SHA-256 in hex over the bundle file. */
  file: string;
  /** The same, and for a delta over what it changed too: equal digests, equal decisions. */
  digest: string;
}>;

export type BundleModule = Readonly<{
  /** Where it is in the bundle. */
  path: string;
  module: WebAssembly.Module;
  /** Its decision paths. */
  entrypoints: readonly string[];
}>;

/** Bound on the file, and on what it unpacks to. */
export const maxBundleBytes = 64 * 1024 * 1024;
const maxUnpackedBytes = 256 * 1024 * 1024;
const maxModules = 32;
export const maxWasmMemoryBytes = 256 * 1024 * 1024;

/**
 * Reads a bundle, compiles and loads its policies, and judges it by its own roots. Throws MalformedError or LimitError
 * that says what is wrong. With `key` the bundle has to be signed by it; without, it has to be unsigned. A delta changes
 * the data of `base`, the version before. Takes its time: for a thread of its own.
 */
export async function parseBundle(file: Buffer, key?: KeyObject, base?: Bundle): Promise<Bundle> {
  if (file.length > maxBundleBytes) throw new LimitError(`bundle is larger than ${maxBundleBytes} bytes`);
  const digest = createHash('sha256').update(file).digest('hex');
  const files = readTar(unpack(file));
  const patch = files.find(({ path }) => baseName(path) === 'patch.json');
  if (patch !== undefined) return applyDelta(files, patch, digest, key, base);
  verifyBundleSignature(files, key);
  const manifest = parseManifest(contentOf(files, '.manifest'));
  const data = readData(files, manifest.roots);
  const modules = await compileModules(files, manifest, data);
  return Object.freeze({ kind: 'snapshot', manifest, modules, data, file: digest, digest });
}

function applyDelta(
  files: readonly TarFile[],
  patch: TarFile,
  digest: string,
  key: KeyObject | undefined,
  base: Bundle | undefined,
): Bundle {
  if (key !== undefined)
    throw new MalformedError('delta bundle cannot be signed, and verification_key wants signed bundles');
  const other = files.find(({ path }) => path !== 'patch.json' && path !== '.manifest');
  if (other !== undefined || patch.path !== 'patch.json') {
    const path = JSON.stringify((other ?? patch).path.slice(0, 200));
    throw new MalformedError(`delta bundle holds ${path} beside patch.json and .manifest`);
  }
  if (base === undefined) throw new MalformedError('delta bundle comes before any snapshot of the bundle');
  const manifest = parseManifest(contentOf(files, '.manifest'));
  const { roots, wasm } = base.manifest;
  if (!sameItems(manifest.roots, roots)) {
    throw new MalformedError(`roots of the delta are not those of the bundle: ${formatRoots(roots)}`);
  }
  if (manifest.wasm !== undefined && !sameItems(manifest.wasm, wasm ?? []))
    throw new MalformedError('wasm in the manifest of the delta is not that of the bundle');
  return Object.freeze({
    kind: 'delta',
    manifest: Object.freeze({ ...manifest, wasm }),
    modules: base.modules,
    data: patchData(base.data, patch.bytes, roots),
    file: digest,
    digest: createHash('sha256').update(`${base.digest} ${digest}`).digest('hex'),
  });
}

function unpack(file: Buffer): Buffer {
  try {
    return gunzipSync(file, { maxOutputLength: maxUnpackedBytes });
  } catch (error) {
    if (error instanceof RangeError) {
      throw new LimitError(`bundle unpacks to more than ${maxUnpackedBytes} bytes`, { cause: error });
    }
    throw new MalformedError('bundle is not a gzip file, or not a whole one', { cause: error });
  }
}

/** Every data.json at the place of its directory. */
function readData(files: readonly TarFile[], roots: readonly DataPath[]): DataText {
  const yaml = files.find(({ path }) => /^data\.ya?ml$/.test(baseName(path)));
  if (yaml !== undefined) {
    const path = JSON.stringify(yaml.path.slice(0, 200));
    throw new MalformedError(`bundle holds ${path}, which is not read here: opa build makes it data.json`);
  }
  const document = emptyObject();
  const budget = createJsonBudget();
  let total = 0;
  for (const { path, bytes } of files) {
    if (baseName(path) !== 'data.json') continue;
    total += bytes.length;
    if (total > maxDataBytes) throw new LimitError(`data is larger than ${maxDataBytes} bytes`);
    const what = `${path.slice(0, 200)} of the bundle`;
    checkJson(bytes, what, budget);
    // As OPA: a directory's name counts without dots in front.
    const directory = path.slice(0, -'data.json'.length).replaceAll(/^[./]+|\/+$/g, '');
    if (directory === '' && bytes[bytes.findIndex((byte) => byte > 0x20)] !== 0x7b)
      throw new MalformedError(`${what} is not a JSON object`);
    const place = directory === '' ? [] : directory.split('/');
    if (place.length > maxDepth) throw new LimitError(`${what} is more than ${maxDepth} directories deep`);
    insertDocument(document, place, jsonText(bytes));
  }
  checkRoots(document, roots);
  const owned = emptyObject();
  insertRoots(owned, document, roots);
  return writeData(owned);
}

async function compileModules(
  files: readonly TarFile[],
  manifest: Manifest,
  data: DataText,
): Promise<readonly BundleModule[]> {
  const found = files.filter(({ path }) => baseName(path) === 'policy.wasm');
  if (found.length > maxModules) throw new LimitError(`bundle has more than ${maxModules} policies`);
  const modules = await Promise.all(
    found.map(async ({ path, bytes }): Promise<BundleModule> => {
      const module = await compile(path, bytes);
      // Loaded once for its entry points and for what it cannot do here; with its own data only, which may be all.
      const source = { module, data, maxMemoryBytes: maxWasmMemoryBytes };
      const { entrypoints } = loadWasmPolicy(source, { now: Date.now, random: Math.random });
      return Object.freeze({ path, module, entrypoints: Object.freeze([...entrypoints.keys()]) });
    }),
  );
  checkEntrypoints(modules, manifest);
  return Object.freeze(modules);
}

function checkEntrypoints(modules: readonly BundleModule[], { roots, wasm }: Manifest): void {
  const seen = new Set<string>();
  for (const { path, entrypoints } of modules) {
    for (const entrypoint of entrypoints) {
      if (!rootsContain(roots, entrypoint.split('/'))) {
        const where = formatPath(entrypoint.split('/'));
        throw new MalformedError(
          `entry point ${where} of ${path} is outside the roots of the bundle: ${formatRoots(roots)}`,
        );
      }
      if (seen.has(entrypoint))
        throw new MalformedError(`entry point ${entrypoint} is in two policies of the bundle`);
      seen.add(entrypoint);
    }
  }
  for (const { entrypoint, module } of wasm ?? []) {
    if (modules.some((one) => one.path === module && one.entrypoints.includes(entrypoint))) continue;
    const [name, where] = [entrypoint, module].map((text) => JSON.stringify(text.slice(0, 200)));
    throw new MalformedError(
      `.manifest lists entry point ${name} of ${where}, which the bundle does not have`,
    );
  }
}

async function compile(path: string, wasm: Buffer): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(new Uint8Array(wasm));
  } catch (error) {
    throw new MalformedError(`${path} is not a WebAssembly module`, { cause: error });
  }
}

function contentOf(files: readonly TarFile[], path: string): Buffer | undefined {
  return files.find((file) => file.path === path)?.bytes;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Equal as sets. */
function sameItems(a: readonly unknown[], b: readonly unknown[]): boolean {
  const texts = (items: readonly unknown[]): string =>
    items
      .map((item) => JSON.stringify(item))
      .sort()
      .join();
  return texts(a) === texts(b);
}
