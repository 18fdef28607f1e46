import { checkJson } from './json-text.ts';
import { type JsonNode, jsonText, opened, stringOf } from './json-tree.ts';

/**
 * The text over which OPA hashes a JSON file of a signed bundle: no white space, keys in order of their UTF-8 bytes, each
 * number as it was written. JSON.parse has no part in it: Node 24 can take a key written with escapes for another one
 * (nodejs/node#63785), and another document would then pass for the signed one. Throws MalformedError or LimitError.
 */
export function canonicalJson(bytes: Uint8Array, what: string): string {
  checkJson(bytes, what);
  return write(jsonText(bytes), what);
}

function write(node: JsonNode, what: string): string {
  const inner = opened(node);
  if (inner.kind === 'array') return `[${inner.items.map((item) => write(item, what)).join(',')}]`;
  if (inner.kind === 'object') {
    const members = [...inner.members].sort(([a], [b]) => compareBytes(a, b));
    return `{${members.map(([key, member]) => `${writeText(key)}:${write(member, what)}`).join(',')}}`;
  }
  const { bytes, start, end } = inner;
  if (bytes[start] === 0x22) return writeText(stringOf(inner, what));
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start)
    .toString('latin1')
    .trim();
}

/** As Go writes a text: the two line separators of JavaScript are escaped, and half a surrogate pair is U+FFFD. */
function writeText(text: string): string {
  return JSON.stringify(text.toWellFormed()).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
}

/** In the order of their UTF-8, which is that of UTF-16 except that surrogates come last. */
function compareBytes(a: string, b: string): number {
  return /[\ud800-\uffff]/.test(a + b) ? Buffer.compare(Buffer.from(a), Buffer.from(b)) : a < b ? -1 : 1;
}
