import { MalformedError } from '../runtime/errors.ts';

/**
 * The text over which OPA hashes a JSON file of a signed bundle: no white space, keys in order of their UTF-8 bytes, each
 * number as it was written. Throws MalformedError for what is not JSON.
 */
export function canonicalJson(text: string): string {
  try {
    const parse = JSON.parse as (text: string, reviver: Reviver) => unknown;
    return write(
      parse(text, (_key, value, { source }) => (typeof value === 'number' ? { [number]: source } : value)),
    );
  } catch (error) {
    throw new MalformedError('a JSON file of the signed bundle cannot be read', { cause: error });
  }
}

type Reviver = (key: string, value: unknown, context: Readonly<{ source: string }>) => unknown;

/** Stands in for a number, of which JSON.parse alone would lose digits. */
const number = Symbol('number');

function write(value: unknown): string {
  if (typeof value === 'string') return writeText(value);
  if (typeof value !== 'object' || value === null) return String(value);
  if (Array.isArray(value)) return `[${value.map(write).join(',')}]`;
  if (number in value) return String(value[number]);
  const members = Object.entries(value).map(([key, member]) => ({ key, bytes: Buffer.from(key), member }));
  members.sort((a, b) => Buffer.compare(a.bytes, b.bytes));
  return `{${members.map(({ key, member }) => `${writeText(key)}:${write(member)}`).join(',')}}`;
}

/** As Go writes a text: the two line separators of JavaScript are escaped. */
function writeText(text: string): string {
  return JSON.stringify(text).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
}
