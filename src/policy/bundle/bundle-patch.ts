import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { type DataText, formatRoots, maxDataBytes, writeData } from './bundle-data.ts';
import { checkJson, maxDepth } from './json-text.ts';
import {
  childOf,
  emptyObject,
  itemIndex,
  type JsonArray,
  type JsonNode,
  type JsonObject,
  jsonText,
  opened,
  stringOf,
} from './json-tree.ts';
import { type DataPath, formatPath, rootsContain } from './roots.ts';

const operations = ['upsert', 'replace', 'remove'] as const;

type Patch = Readonly<{ op: (typeof operations)[number]; path: DataPath; value: JsonNode }>;

/**
 * The data of a bundle after the operations of a delta's `patch.json`, all of them or none. As in OPA an upsert makes the
 * objects above it, replace and remove need something there, and an array takes an upsert before the index or, at `-`,
 * at its end. Throws MalformedError that names the operation, or LimitError.
 */
export function patchData(data: DataText, patch: Uint8Array, roots: readonly DataPath[]): DataText {
  if (patch.length > maxDataBytes) throw new LimitError(`patch.json is larger than ${maxDataBytes} bytes`);
  checkJson(patch, 'patch.json');
  const document = opened(jsonText(data));
  if (document.kind !== 'object') throw new MalformedError('data of the bundle is no object');
  for (const [index, operation] of readOperations(patch).entries()) {
    const { op, path, value } = parseOperation(operation, `operation ${index} of patch.json`);
    const what = `${op} of ${formatPath(path)} in patch.json`;
    if (path.length > maxDepth) throw new LimitError(`${what} is more than ${maxDepth} deep`);
    if (path.length === 0) throw new MalformedError(`${what} would change the whole document`);
    if (!rootsContain(roots, path))
      throw new MalformedError(`${what} is outside the roots of the bundle: ${formatRoots(roots)}`);
    change(document, { op, path, value }, what);
  }
  const patched = writeData(document);
  // The next delta takes it apart.
  checkJson(patched, 'data of the bundle');
  return patched;
}

function readOperations(patch: Uint8Array): readonly JsonNode[] {
  const document = opened(jsonText(patch));
  const list = document.kind === 'object' ? document.members.get('data') : undefined;
  const operations = list && opened(list);
  if (operations?.kind !== 'array' || operations.items.length === 0)
    throw new MalformedError('patch.json has no list of operations named data');
  return operations.items;
}

function parseOperation(node: JsonNode, what: string): Patch {
  const operation = opened(node);
  if (operation.kind !== 'object') throw new MalformedError(`${what} is no object`);
  const { members } = operation;
  const name = stringOf(members.get('op'), `op in ${what}`);
  const op = operations.find((known) => known === name);
  if (op === undefined) throw new MalformedError(`op in ${what} is none of ${operations.join(', ')}`);
  const path = parsePath(stringOf(members.get('path'), `path in ${what}`), what);
  // OPA takes a value that is missing as null.
  return { op, path, value: members.get('value') ?? jsonText(Buffer.from('null')) };
}

/** As OPA reads it: percent escapes of URLs first, then those of JSON pointers. */
function parsePath(text: string, what: string): DataPath {
  const trimmed = text.replaceAll(/^\/+|\/+$/g, '');
  if (trimmed === '') return [];
  try {
    return trimmed
      .split('/')
      .map((segment) => decodeURIComponent(segment).replaceAll('~1', '/').replaceAll('~0', '~'));
  } catch (error) {
    throw new MalformedError(`path in ${what} has a percent sign that escapes nothing`, { cause: error });
  }
}

function change(document: JsonObject, { op, path, value }: Patch, what: string): void {
  const last = path.at(-1) ?? '';
  const parent = path.slice(0, -1).reduce<JsonObject | JsonArray>((node, segment) => {
    const child = childOf(node, segment);
    if (child !== undefined && (child.kind === 'object' || child.kind === 'array')) return child;
    if (child !== undefined || op !== 'upsert' || node.kind !== 'object')
      throw new MalformedError(`${what} leads through something that is no object`);
    const made = emptyObject();
    node.members.set(segment, made);
    return made;
  }, document);
  if (parent.kind === 'object') {
    if (op !== 'upsert' && !parent.members.has(last)) throw new MalformedError(`${what} finds nothing there`);
    if (op === 'remove') parent.members.delete(last);
    else parent.members.set(last, value);
    return;
  }
  const { items } = parent;
  const index = op === 'upsert' && last === '-' ? items.length : itemIndex(last);
  if (index === undefined || index > items.length || (op !== 'upsert' && index === items.length))
    throw new MalformedError(`${what} finds no such item`);
  items.splice(index, op === 'upsert' ? 0 : 1, ...(op === 'remove' ? [] : [value]));
}
