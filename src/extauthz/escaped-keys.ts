/**
 * True when a key of an object in `text`, valid JSON, is written with an escape.
 *
 * V8 from 12.8 on, and so Node 24, takes such a key for another one whose characters begin as the written ones do, if it
 * has met that one at this place of an object before (nodejs/node#63785). A client could so hide a member of its body from
 * a policy, which the application behind Envoy then reads: JSON.parse must not be asked about these texts.
 */
export function hasEscapedKey(text: string): boolean {
  let at = text.indexOf('\\');
  if (at === -1) return false;
  // Before the first backslash no string has an escape, so an odd number of quotes means that it stands in one.
  at = text.lastIndexOf('"', at);
  while (at !== -1) {
    const { end, escaped } = endOfString(text, at);
    if (escaped && text.charCodeAt(afterSpace(text, end)) === colon) return true;
    at = text.indexOf('"', end);
  }
  return false;
}

/**
 * The value of `text`, which must be valid JSON and not deeper than a recursive walk can go. Objects have no prototype, the
 * last of equal keys counts, and a number is what `numberOf` makes of its text.
 */
export function readJson(text: string, numberOf: (token: string) => unknown): unknown {
  let at = afterSpace(text, 0);
  return value();

  function value(): unknown {
    const first = text.charCodeAt(at);
    if (first === openBrace) return object();
    if (first === openBracket) return array();
    if (first === quote) return string();
    const start = at;
    while (at < text.length && !isDelimiter(text.charCodeAt(at))) at++;
    const token = text.slice(start, at);
    if (token === 'true' || token === 'false') return token === 'true';
    return token === 'null' ? null : numberOf(token);
  }

  function string(): string {
    const start = at;
    const { end, escaped } = endOfString(text, start);
    at = end;
    return escaped ? (JSON.parse(text.slice(start, end)) as string) : text.slice(start + 1, end - 1);
  }

  function object(): Record<string, unknown> {
    const members = Object.create(null) as Record<string, unknown>;
    for (next(); text.charCodeAt(at) !== closeBrace; comma()) {
      const key = string();
      at = afterSpace(text, at);
      next();
      members[key] = value();
    }
    at++;
    return members;
  }

  function array(): unknown[] {
    const items: unknown[] = [];
    for (next(); text.charCodeAt(at) !== closeBracket; comma()) items.push(value());
    at++;
    return items;
  }

  function next(): void {
    at = afterSpace(text, at + 1);
  }

  function comma(): void {
    at = afterSpace(text, at);
    if (text.charCodeAt(at) === 0x2c) next();
  }
}

const quote = 0x22;
const backslash = 0x5c;
const colon = 0x3a;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;

/** The place behind the string that begins at `start`, and whether anything in it is escaped. */
function endOfString(text: string, start: number): { end: number; escaped: boolean } {
  let escaped = false;
  for (let i = start + 1; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === quote) return { end: i + 1, escaped };
    if (c === backslash) {
      escaped = true;
      i++;
    }
  }
  return { end: text.length, escaped };
}

function afterSpace(text: string, from: number): number {
  let at = from;
  while (isSpace(text.charCodeAt(at))) at++;
  return at;
}

function isSpace(c: number): boolean {
  return c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;
}

function isDelimiter(c: number): boolean {
  return c === 0x2c || c === closeBrace || c === closeBracket || isSpace(c);
}
