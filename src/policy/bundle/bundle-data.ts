import { LimitError, MalformedError } from '../../runtime/errors.ts';
import {
  childOf,
  eachPiece,
  emptyObject,
  isObject,
  type JsonNode,
  type JsonObject,
  jsonText,
  opened,
} from './json-tree.ts';
import { type DataPath, formatPath, leadsToRoot, rootsContain } from './roots.ts';

/** JSON text of a data document, which is an object, in memory that threads share. */
export type DataText = Uint8Array<SharedArrayBuffer>;

/** Bound on one document, because each policy worker holds a copy of its own. */
export const maxDataBytes = 64 * 1024 * 1024;

/** Throws MalformedError that names the first path of the document outside the roots. */
export function checkRoots(document: JsonNode, roots: readonly DataPath[], path: DataPath = []): void {
  if (rootsContain(roots, path)) return;
  const node = opened(document);
  if (node.kind !== 'object' || (path.length > 0 && !leadsToRoot(roots, path))) {
    throw new MalformedError(
      `data at ${formatPath(path)} is outside the roots of the bundle: ${formatRoots(roots)}`,
    );
  }
  for (const [key, member] of node.members) checkRoots(member, roots, [...path, key]);
}

export function formatRoots(roots: readonly DataPath[]): string {
  return roots.length === 0 ? 'it has none' : roots.slice(0, 10).map(formatPath).join(', ');
}

/** Adds a document at a path; where there is one already, both must be objects that have nothing in common. */
export function insertDocument(into: JsonObject, path: DataPath, document: JsonNode): void {
  merge(into, path.reduceRight(within, document), []);
}

function within(inner: JsonNode, segment: string): JsonObject {
  const around = emptyObject();
  around.members.set(segment, inner);
  return around;
}

function merge(into: JsonObject, document: JsonNode, path: DataPath): void {
  const from = opened(document);
  if (from.kind !== 'object') throw new MalformedError(`data at ${formatPath(path)} is no object`);
  for (const [key, member] of from.members) {
    const held = into.members.get(key);
    const here = [...path, key];
    if (held === undefined) {
      into.members.set(key, member);
    } else {
      const mine = opened(held);
      if (mine.kind !== 'object' || !isObject(member))
        throw new MalformedError(`data at ${formatPath(here)} is in the bundle twice`);
      into.members.set(key, mine);
      merge(mine, member, here);
    }
  }
}

/** The document of several bundles: of each what lies at its roots, which do not overlap. Throws LimitError. */
export function mergeBundleData(
  bundles: readonly Readonly<{ roots: readonly DataPath[]; data: DataText }>[],
): DataText {
  const merged = emptyObject();
  for (const { roots, data } of bundles) insertRoots(merged, opened(jsonText(data)), roots);
  return writeData(merged);
}

/** Adds what lies at the roots, and nothing of the way to them. */
export function insertRoots(into: JsonObject, document: JsonNode, roots: readonly DataPath[]): void {
  for (const root of roots) {
    const found = root.reduce<JsonNode | undefined>(
      (node, segment) => node && childOf(node, segment),
      document,
    );
    if (found !== undefined) insertDocument(into, root, found);
  }
}

/** Throws LimitError for a document beyond maxDataBytes. */
export function writeData(document: JsonNode): DataText {
  let length = 0;
  eachPiece(document, (piece) => (length += Buffer.byteLength(piece)));
  if (length > maxDataBytes) throw new LimitError(`data is larger than ${maxDataBytes} bytes`);
  const text = new Uint8Array(new SharedArrayBuffer(length));
  const into = Buffer.from(text.buffer);
  let at = 0;
  eachPiece(document, (piece) => {
    if (typeof piece === 'string') at += into.write(piece, at);
    else {
      into.set(piece, at);
      at += piece.byteLength;
    }
  });
  return text;
}
