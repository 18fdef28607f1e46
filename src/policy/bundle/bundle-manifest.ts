import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { canonicalJson } from './canonical-json.ts';
import { checkOverlap, type DataPath, parseRoot } from './roots.ts';

/** What a bundle says of itself. */
export type Manifest = Readonly<{
  /** Empty when it has none. */
  revision: string;
  /** Parts of `data` that the bundle owns; one empty path is all of it. */
  roots: readonly DataPath[];
  /** Entry points by module, as the manifest lists them; undefined when it does not. */
  wasm: readonly Readonly<{ entrypoint: string; module: string }>[] | undefined;
}>;

const maxManifestBytes = 1024 * 1024;
const maxRoots = 1000;

/** Reads `.manifest`; a bundle without one owns everything. Throws MalformedError or LimitError. */
export function parseManifest(bytes: Buffer | undefined): Manifest {
  if (bytes === undefined) return Object.freeze({ revision: '', roots: [[]], wasm: undefined });
  if (bytes.length > maxManifestBytes)
    throw new LimitError(`.manifest of the bundle is larger than ${maxManifestBytes} bytes`);
  const manifest: unknown = parseJson(canonicalJson(bytes, '.manifest of the bundle'));
  if (typeof manifest !== 'object' || manifest === null || Array.isArray(manifest)) {
    throw new MalformedError('.manifest of the bundle is not a JSON object');
  }
  const { revision, roots, wasm } = manifest as Readonly<Record<string, unknown>>;
  return Object.freeze({
    revision: parseRevision(revision ?? ''),
    roots: parseRoots(roots ?? ['']),
    wasm: wasm === undefined || wasm === null ? undefined : parseWasm(wasm),
  });
}

function parseRevision(revision: unknown): string {
  if (typeof revision !== 'string' || revision.length > 1024) {
    throw new MalformedError('revision in .manifest is not text of at most 1024 characters');
  }
  return revision;
}

function parseRoots(roots: unknown): readonly DataPath[] {
  if (!Array.isArray(roots) || !roots.every((root) => typeof root === 'string')) {
    throw new MalformedError('roots in .manifest is not a list of texts');
  }
  if (roots.length > maxRoots) throw new LimitError(`.manifest has more than ${maxRoots} roots`);
  const paths = roots.map(parseRoot);
  checkOverlap([{ name: '', roots: paths }]);
  return Object.freeze(paths);
}

function parseWasm(wasm: unknown): NonNullable<Manifest['wasm']> {
  if (!Array.isArray(wasm)) throw new MalformedError('wasm in .manifest is not a list');
  const modules = wasm.map((entry: unknown) => {
    const { entrypoint, module } = (entry ?? {}) as Readonly<Record<string, unknown>>;
    if (typeof entrypoint !== 'string' || typeof module !== 'string')
      throw new MalformedError('wasm in .manifest has an entry without entrypoint or module');
    return Object.freeze({ entrypoint, module: module.replace(/^\/+/, '') });
  });
  return Object.freeze(modules);
}
