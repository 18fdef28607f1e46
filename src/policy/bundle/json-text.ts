import { isUtf8 } from 'node:buffer';
import { LimitError, MalformedError } from '../../runtime/errors.ts';

/** How deep a document may be nested, because what reads it afterwards is recursive. */
export const maxDepth = 1000;

/** How many values a document may have. What is taken apart costs up to 200 bytes for each, and a policy holds no more in its memory. */
const maxValues = 2_000_000;

/** How many values may still come, for texts that count together. */
export type JsonBudget = { values: number };

export function createJsonBudget(): JsonBudget {
  return { values: maxValues };
}

const [openObject, closeObject, openArray, closeArray] = [0x7b, 0x7d, 0x5b, 0x5d];
const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a];

/**
 * Checks that the bytes are one JSON text (RFC 8259) in UTF-8 and nothing else, building nothing: it costs time in
 * proportion to the text and no memory. Throws MalformedError, which names `what`, or LimitError for one nested too deep
 * or of too many values.
 */
export function checkJson(bytes: Uint8Array, what: string, budget = createJsonBudget()): void {
  if (!isUtf8(bytes)) throw new MalformedError(`${what} is not JSON: not UTF-8`);
  const end = skipSpace(bytes, skipValue(bytes, skipSpace(bytes, 0), what, budget));
  if (end < bytes.length) throw malformed(what, end);
}

/** Where the value that begins at `start` ends. */
export function skipValue(bytes: Uint8Array, start: number, what: string, budget?: JsonBudget): number {
  const closers: number[] = [];
  let at = start;
  for (;;) {
    if (budget !== undefined && (budget.values -= 1) < 0)
      throw new LimitError(`${what} goes beyond ${maxValues} values, which are the most that can be read`);
    const first = bytes[at];
    if (first === openObject || first === openArray) {
      if (closers.length === maxDepth) throw new LimitError(`${what} is nested more than ${maxDepth} deep`);
      const closer = first === openObject ? closeObject : closeArray;
      at = skipSpace(bytes, at + 1);
      if (bytes[at] !== closer) {
        closers.push(closer);
        if (closer === closeObject) at = skipKey(bytes, at, what);
        continue;
      }
      at += 1;
    } else {
      at = skipScalar(bytes, at, what);
    }
    // Behind a value: the containers that end here, then the next value of the one that goes on.
    for (;;) {
      const closer = closers.at(-1);
      if (closer === undefined) return at;
      at = skipSpace(bytes, at);
      const next = bytes[at];
      at += 1;
      if (next === closer) {
        closers.pop();
      } else if (next === comma) {
        at = skipSpace(bytes, at);
        if (closer === closeObject) at = skipKey(bytes, at, what);
        break;
      } else {
        throw malformed(what, at - 1);
      }
    }
  }
}

/** The end of a string with its quotes. */
export function skipString(bytes: Uint8Array, start: number, what: string): number {
  if (bytes[start] !== quote) throw malformed(what, start);
  for (let at = start + 1; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte === quote) return at + 1;
    if (byte < 0x20) throw malformed(what, at);
    if (byte === backslash) {
      at += 1;
      const escape = String.fromCharCode(bytes[at] ?? 0);
      if (escape === 'u') {
        for (let end = at + 4; at < end; ) if (!isHex(bytes[(at += 1)])) throw malformed(what, at);
      } else if (!'"\\/bfnrt'.includes(escape)) {
        throw malformed(what, at);
      }
    }
  }
  throw malformed(what, bytes.length);
}

export function skipSpace(bytes: Uint8Array, start: number): number {
  let at = start;
  for (let byte = bytes[at]; byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09; )
    byte = bytes[(at += 1)];
  return at;
}

/** The key, the colon and the space behind it. */
function skipKey(bytes: Uint8Array, start: number, what: string): number {
  const at = skipSpace(bytes, skipString(bytes, start, what));
  if (bytes[at] !== colon) throw malformed(what, at);
  return skipSpace(bytes, at + 1);
}

function skipScalar(bytes: Uint8Array, start: number, what: string): number {
  const first = bytes[start];
  if (first === quote) return skipString(bytes, start, what);
  let end = start;
  while (isWord(bytes[end])) end += 1;
  const word = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
  if (!/^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/.test(word))
    throw malformed(what, start);
  return end;
}

/** What literals and numbers consist of. */
function isWord(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45
  );
}

function isHex(byte: number | undefined): boolean {
  return byte !== undefined && /[0-9a-fA-F]/.test(String.fromCharCode(byte));
}

function malformed(what: string, at: number): MalformedError {
  return new MalformedError(`${what} is not JSON: wrong at byte ${at}`);
}
