import { LimitError, MalformedError } from '../runtime/errors.ts';
import { parseJson } from '../runtime/parse-json.ts';

const maxDepth = 32;
const string = /"(?:[^"\\]|\\.)*"/y;
const colon = /[ \t\r\n]*:/y;

export type JsonObject = Readonly<Record<string, unknown>>;
export type JsonOptions = Readonly<{ exactIntegers?: boolean }>;

/**
 * Parses a JSON text whose top level is an object. A key that occurs twice in one object is refused: readers disagree
 * which one counts. With `exactIntegers`, integers that a number would round become a BigInt. Throws MalformedError, or
 * LimitError beyond 32 levels. `what` names the text in messages.
 */
export function parseJsonObject(text: string, what: string, options: JsonOptions = {}): JsonObject {
  checkStructure(text, what);
  let value: unknown;
  try {
    value = parseJson(text, options.exactIntegers === true ? parseExactly : undefined);
  } catch {
    // No cause: the parser's own message quotes the text, which may be a credential.
    throw new MalformedError(`${what} is not JSON`);
  }
  if (!isJsonObject(value)) throw new MalformedError(`${what} is not a JSON object`);
  return value;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseExactly(text: string): unknown {
  return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) => {
    const source = context?.source ?? '';
    return typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(source)
      ? BigInt(source)
      : value;
  });
}

/** Depth and duplicate keys in one pass; on text that is no JSON the outcome does not matter, JSON.parse follows. */
function checkStructure(text: string, what: string): void {
  const open: (Set<string> | undefined)[] = [];
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '{' || character === '[') {
      if (open.length >= maxDepth) throw new LimitError(`${what} has more than ${maxDepth} levels`);
      open.push(character === '{' ? new Set() : undefined);
    } else if (character === '}' || character === ']') {
      open.pop();
    } else if (character === '"') {
      string.lastIndex = at;
      const literal = string.exec(text)?.[0];
      if (literal === undefined) throw new MalformedError(`${what} is not JSON`);
      at += literal.length - 1;
      colon.lastIndex = at + 1;
      if (colon.test(text)) addKey(open.at(-1), literal, what);
    }
  }
}

function addKey(keys: Set<string> | undefined, literal: string, what: string): void {
  let key: unknown;
  try {
    key = JSON.parse(literal);
  } catch {
    throw new MalformedError(`${what} is not JSON`);
  }
  if (keys === undefined || typeof key !== 'string') throw new MalformedError(`${what} is not JSON`);
  if (keys.has(key)) throw new MalformedError(`${what} has a key twice`);
  keys.add(key);
}
