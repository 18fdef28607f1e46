import { MalformedError } from '../../runtime/errors.ts';
import { skipSpace, skipString, skipValue } from './json-text.ts';

/**
 * A JSON document to move parts of, of which only what is looked into is taken apart: the rest stays the text that it was,
 * so that no number loses a digit and a large document costs little. The text has passed checkJson.
 */
export type JsonNode = JsonText | JsonObject | JsonArray;

export type JsonText = Readonly<{ kind: 'text'; bytes: Uint8Array; start: number; end: number }>;
export type JsonObject = Readonly<{ kind: 'object'; members: Map<string, JsonNode> }>;
export type JsonArray = Readonly<{ kind: 'array'; items: JsonNode[] }>;

/** The document that a text holds. */
export function jsonText(bytes: Uint8Array): JsonText {
  const start = skipSpace(bytes, 0);
  return { kind: 'text', bytes, start, end: bytes.length };
}

export function emptyObject(): JsonObject {
  return { kind: 'object', members: new Map() };
}

/** The node with its members or items, one level of them; a scalar as it is. */
export function opened(node: JsonNode): JsonNode {
  if (node.kind !== 'text') return node;
  const first = node.bytes[node.start];
  if (first === 0x7b) return { kind: 'object', members: readMembers(node) };
  return first === 0x5b ? { kind: 'array', items: readItems(node) } : node;
}

/** True for an object, taken apart or not. */
export function isObject(node: JsonNode): boolean {
  return node.kind === 'object' || (node.kind === 'text' && node.bytes[node.start] === 0x7b);
}

/** The text of a document that is a JSON string; throws MalformedError for anything else. */
export function stringOf(node: JsonNode | undefined, what: string): string {
  if (node?.kind !== 'text' || node.bytes[node.start] !== 0x22)
    throw new MalformedError(`${what} is not text`);
  return decodeString(node.bytes, node.start, skipString(node.bytes, node.start, what));
}

/** Gives the whole document as one text again, piece by piece. */
export function eachPiece(node: JsonNode, take: (piece: string | Uint8Array) => void): void {
  if (node.kind === 'text') {
    take(node.bytes.subarray(node.start, node.end));
    return;
  }
  const [open = '', close = ''] = node.kind === 'object' ? '{}' : '[]';
  let before = open;
  for (const [key, child] of node.kind === 'object' ? node.members : node.items.entries()) {
    take(typeof key === 'string' ? `${before}${JSON.stringify(key)}:` : before);
    eachPiece(child, take);
    before = ',';
  }
  take(before === open ? `${open}${close}` : close);
}

/** The member or item, taken apart where it stands, so that what changes in it changes the document. */
export function childOf(node: JsonNode, segment: string): JsonNode | undefined {
  if (node.kind === 'object') {
    const child = node.members.get(segment);
    if (child === undefined) return undefined;
    const inner = opened(child);
    node.members.set(segment, inner);
    return inner;
  }
  const index = itemIndex(segment);
  const child = node.kind === 'array' && index !== undefined ? node.items[index] : undefined;
  if (node.kind !== 'array' || index === undefined || child === undefined) return undefined;
  const inner = opened(child);
  node.items[index] = inner;
  return inner;
}

/** As JSON pointers have it (RFC 6901 §4); undefined for what is no index. */
export function itemIndex(segment: string): number | undefined {
  return /^(?:0|[1-9]\d{0,8})$/.test(segment) ? Number(segment) : undefined;
}

/** Of a key that occurs twice the last value counts, as for OPA. */
function readMembers({ bytes, start }: JsonText): Map<string, JsonNode> {
  const members = new Map<string, JsonNode>();
  for (let at = skipSpace(bytes, start + 1); bytes[at] !== 0x7d; ) {
    if (bytes[at] === 0x2c) at = skipSpace(bytes, at + 1);
    const keyEnd = skipString(bytes, at, 'object');
    const key = decodeString(bytes, at, keyEnd);
    const from = skipSpace(bytes, skipSpace(bytes, keyEnd) + 1);
    const end = skipValue(bytes, from, 'object');
    members.set(key, { kind: 'text', bytes, start: from, end });
    at = skipSpace(bytes, end);
  }
  return members;
}

function readItems({ bytes, start }: JsonText): JsonNode[] {
  const items: JsonNode[] = [];
  for (let at = skipSpace(bytes, start + 1); bytes[at] !== 0x5d; ) {
    if (bytes[at] === 0x2c) at = skipSpace(bytes, at + 1);
    const end = skipValue(bytes, at, 'array');
    items.push({ kind: 'text', bytes, start: at, end });
    at = skipSpace(bytes, end);
  }
  return items;
}

function decodeString(bytes: Uint8Array, start: number, end: number): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('utf8');
  return text.includes('\\') ? (JSON.parse(text) as string) : text.slice(1, -1);
}
