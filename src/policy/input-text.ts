import { randomBytes } from 'node:crypto';
import { MalformedError } from '../runtime/errors.ts';

/**
 * The JSON text of a policy input; the one time that an input is written as text. A lone surrogate, which a request's
 * body can hold and no UTF-8 can, becomes U+FFFD as in OPA itself: the parser inside wasm would abort on it, and an
 * error that a client can provoke is no deny. Throws MalformedError for what JSON cannot hold.
 */
export function encodeInput(input: unknown): string {
  const large: Large[] = [];
  findLarge(input, [], large);
  if (large.length === 0) return encodeWhole(input);
  // No text of the input can be it but by guessing it.
  const mark = randomBytes(12).toString('base64url');
  const marked = large.reduce((whole, { path }, index) => replaced(whole, path, `${mark}${index}`), input);
  let text = encodeWhole(marked);
  for (const [index, { value }] of large.entries()) {
    const written = `"${mark}${index}"`;
    const at = text.indexOf(written);
    text = text.slice(0, at) + encodeLarge(value) + text.slice(at + written.length);
  }
  return text;
}

/** JSON.stringify writes nothing else that begins so, but for a backslash of the text itself, which it doubles. */
const surrogate = '\\ud';
const escapeLength = 6;
const backslash = 0x5c;

/** As a text of its own from here on: of one that is all escapes JSON.stringify and the look for surrogates take twice as long. */
const largeLength = 64 * 1024;
/** Where bodies stand: `attributes.request.http.body`, beside few others. */
const largeDepth = 4;
const largeKeys = 32;
const pieceLength = 64 * 1024;

type Path = readonly string[];
type Large = Readonly<{ path: Path; value: string }>;

/** `path` is where `value` stands, and is again when this returns. */
function findLarge(value: unknown, path: string[], large: Large[]): void {
  if (!isObject(value)) return;
  const keys = Object.keys(value);
  if (keys.length > largeKeys) return;
  for (const key of keys) {
    const child = value[key];
    if (typeof child === 'string') {
      // A number that is kept digit by digit is an object with a text, too.
      if (child.length > largeLength && !isRawJson(value)) large.push({ path: [...path, key], value: child });
    } else if (path.length + 1 < largeDepth && typeof child === 'object') {
      path.push(key);
      findLarge(child, path, large);
      path.pop();
    }
  }
}

/** A copy with another value at `path`. */
function replaced(value: unknown, [key, ...rest]: Path, by: string): unknown {
  if (key === undefined || !isObject(value)) return by;
  return { ...value, [key]: replaced(value[key], rest, by) };
}

function encodeLarge(text: string): string {
  const whole = text.toWellFormed();
  let encoded = '"';
  for (let start = 0; start < whole.length; ) {
    let end = Math.min(start + pieceLength, whole.length);
    // Both halves of a pair stay together.
    if ((whole.charCodeAt(end - 1) & 0xfc00) === 0xd800) end += 1;
    encoded += JSON.stringify(whole.slice(start, end)).slice(1, -1);
    start = end;
  }
  return `${encoded}"`;
}

function encodeWhole(input: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(input);
  } catch (error) {
    throw new MalformedError('input cannot be written as JSON', { cause: error });
  }
  if (text === undefined) return 'null';
  return text.includes(surrogate) ? withoutSurrogates(text) : text;
}

function withoutSurrogates(text: string): string {
  const parts: string[] = [];
  let done = 0;
  for (let at = text.indexOf(surrogate); at !== -1; at = text.indexOf(surrogate, at + surrogate.length)) {
    let start = at;
    while (start > done && text.charCodeAt(start - 1) === backslash) start--;
    if ((at - start) % 2 !== 0) continue;
    parts.push(text.slice(done, at), '\\ufffd');
    done = at + escapeLength;
  }
  return parts.join('') + text.slice(done);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isRawJson(value: object): boolean {
  return (JSON as unknown as { isRawJSON(value: unknown): boolean }).isRawJSON(value);
}
