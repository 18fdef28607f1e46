import { randomBytes } from 'node:crypto';
import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';

/** Deeper JSON is refused: a recursive walk of ours or of an engine must never run out of stack. */
export const maxJsonDepth = 512;
/** Each costs about as much to read and to hand to an engine as ten times as many bytes of text. */
const maxContainers = 100_000;
const maxMembers = 100_000;
/** Each costs a look at the text and an object. */
const maxLongNumbers = 65_536;

type RawJson = Readonly<{ rawJSON(text: string): object }>;
/**
 * A number that JSON.stringify writes digit by digit as in `text`. It is no longer a JavaScript number, and does not
 * survive structuredClone: inputs go to engines as JSON text.
 */
export function rawNumber(text: string): object {
  return (JSON as unknown as RawJson).rawJSON(text);
}

/**
 * Parses JSON from a request body. Numbers that a double cannot hold are kept digit by digit, because a policy that
 * compares identifiers must not see two of them as one. Throws MalformedError, or LimitError when nested too deep, with more
 * than 100 000 arrays and objects or members of objects, 65 536 numbers of that kind, or an exponent of more than five digits.
 */
export function parseExactJson(text: string): unknown {
  if (text.length > maxJsonDepth) boundJson(text);
  try {
    return parseJson(text, (plain) => {
      const value = JSON.parse(plain) as unknown;
      return longNumber.test(plain) ? withExactNumbers(value, plain) : value;
    });
  } catch (error) {
    if (error instanceof LimitError) throw error;
    // The engine's message quotes the text, so it is not passed on.
    throw new MalformedError('body is not valid JSON', { cause: error });
  }
}

/** A number of 16 digits or with an exponent may be more than a double holds; texts without one skip the slow way. */
const longNumber = /\d[\d.]{15}|\d[eE]/;
const stringOrLongNumber = /"(?:[^"\\]|\\.)*"|-?\d[\d.]{15,}(?:[eE][+-]?\d+)?|-?\d+(?:\.\d+)?[eE][+-]?\d+/g;

/**
 * `text` is valid JSON and `value` what it says. Not by a reviver of JSON.parse: it costs a microsecond for each member of
 * the body, and a client chooses how many there are.
 */
function withExactNumbers(value: unknown, text: string): unknown {
  // No string of the body can begin with it but by guessing it.
  const mark = randomBytes(12).toString('base64url');
  let marked = '';
  let done = 0;
  let found = 0;
  for (const { 0: token, index } of text.matchAll(stringOrLongNumber)) {
    if (token.startsWith('"') || isExact(Number(token), token)) continue;
    if (++found > maxLongNumbers) throw new LimitError('body has too many numbers that a double cannot hold');
    checkExponent(token);
    marked += `${text.slice(done, index)}"${mark}${token}"`;
    done = index + token.length;
  }
  return done === 0 ? value : unmark(JSON.parse(marked + text.slice(done)), mark);
}

// Beyond this an engine fails, or works for long, on the first comparison or sum.
function checkExponent(token: string): void {
  if (/[eE][+-]?0*[1-9]\d{5}/.test(token))
    throw new LimitError('body has a number with too large an exponent');
}

/** Replaces the marked strings in `value`, which is nobody else's yet. */
function unmark(value: unknown, mark: string): unknown {
  if (typeof value === 'string') return value.startsWith(mark) ? rawNumber(value.slice(mark.length)) : value;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) value[i] = unmark(value[i], mark);
    return value;
  }
  const container = value as Record<string, unknown>;
  for (const key of Object.keys(container)) container[key] = unmark(container[key], mark);
  return value;
}

// A double holds every decimal of 15 digits within its range, and every integer up to 2^53.
function isExact(value: number, source: string): boolean {
  if (!Number.isFinite(value)) return false;
  if (source.length <= 15 && Math.abs(value) >= 1e-300) return true;
  const mantissa = source.replace(/[eE].*$/, '').replace(/[-.]/g, '');
  if (mantissa.length > 15) return Number.isSafeInteger(value) && /^-?\d+$/.test(source);
  return Math.abs(value) >= 1e-300 || !/[1-9]/.test(mantissa);
}

/** Without a look at what `text` says, so that hostile text costs its length. */
function boundJson(text: string): void {
  let depth = 0;
  let deepest = 0;
  let containers = 0;
  let members = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 0x5c) i++;
      else if (c === 0x22) quoted = false;
    } else if (c === 0x22) quoted = true;
    else if (c === 0x3a) members++;
    else if (c === 0x5b || c === 0x7b) {
      containers++;
      deepest = Math.max(deepest, ++depth);
    } else if (c === 0x5d || c === 0x7d) depth--;
  }
  if (deepest > maxJsonDepth) throw new LimitError(`JSON is nested deeper than ${maxJsonDepth} levels`);
  if (containers > maxContainers || members > maxMembers)
    throw new LimitError(`JSON has more than ${maxContainers} arrays and objects, or ${maxMembers} members`);
}
