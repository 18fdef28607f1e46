import { randomBytes } from 'node:crypto';
import { LimitError } from './errors.ts';

/**
 * JSON.parse for text from outside. Throws SyntaxError, whose message may quote the text, or LimitError when more than 10 000
 * different keys are written with an escape.
 *
 * V8 from 12.8 on, and so Node 24, takes a key that is written with an escape for another one of its length whose characters
 * begin as the written ones do, if it has met that one at this place of an object before, in whatever document
 * (nodejs/node#63785). A member could so be hidden from us that everybody else reads. Therefore JSON.parse never sees such a key.
 *
 * `parse` may stand for JSON.parse; it gets a text with the same values at the same places, but perhaps other keys.
 */
export function parseJson(text: string, parse: (text: string) => unknown = parsePlain): unknown {
  let backslash = text.indexOf('\\');
  if (backslash === -1) return parse(text);
  const keys = createPlainKeys();
  let plain = '';
  let done = 0;
  // As the grammar has it from the first quote on, so that text that is no JSON stays none.
  for (let start = text.indexOf('"'); start !== -1 && backslash !== -1; ) {
    if (backslash < start) backslash = text.indexOf('\\', start);
    let end = text.indexOf('"', start + 1);
    const escaped = backslash !== -1 && backslash < end;
    while (backslash !== -1 && backslash < end) {
      if (backslash + 1 === end) end = text.indexOf('"', end + 1);
      backslash = text.indexOf('\\', backslash + 2);
    }
    if (end === -1) break;
    if (escaped && text.charCodeAt(afterSpace(text, end + 1)) === colon) {
      plain += text.slice(done, start) + keys.plain(text.slice(start, end + 1));
      done = end + 1;
    }
    start = text.indexOf('"', end + 1);
  }
  if (done === 0) return parse(text);
  const value = parse(plain + text.slice(done));
  return keys.names.size === 0 ? value : withNames(value, keys.names);
}

const colon = 0x3a;
/** Each costs as much as thirty bytes of other text, and no document has reason to so many. */
const maxEscapedKeys = 10_000;
/** What RFC 8259 §7 has no string hold as it is. */
// oxlint-disable-next-line no-control-regex -- these are meant
const escapedAlways = /["\\\u0000-\u001f]/;

function parsePlain(text: string): unknown {
  return JSON.parse(text);
}

type PlainKeys = Readonly<{
  /** The literal without an escape. One stands in for a key that needs some, the same for equal keys: the last counts. */
  plain(literal: string): string;
  /** Of the keys for which another one stands, by that one. */
  names: ReadonlyMap<string, string>;
}>;

function createPlainKeys(): PlainKeys {
  // No key of the text can begin with it but by guessing it.
  const mark = randomBytes(12).toString('base64url');
  const known = new Map<string, string>();
  const standIns = new Map<string, string>();
  const names = new Map<string, string>();

  function standInFor(key: string): string {
    let standIn = standIns.get(key);
    if (standIn === undefined) {
      standIn = `${mark}${standIns.size}`;
      standIns.set(key, standIn);
      names.set(standIn, key);
    }
    return standIn;
  }

  return {
    names,
    plain(literal) {
      let plain = known.get(literal);
      if (plain === undefined) {
        if (known.size === maxEscapedKeys)
          throw new LimitError(`JSON has more than ${maxEscapedKeys} keys that are written with an escape`);
        const key = JSON.parse(literal) as string;
        plain = `"${escapedAlways.test(key) ? standInFor(key) : key}"`;
        known.set(literal, plain);
      }
      return plain;
    },
  };
}

/** Puts the keys in place for which another one stood, in `value`, which is nobody else's yet, however deep it is. */
function withNames(value: unknown, names: ReadonlyMap<string, string>): unknown {
  const root = [value];
  const open: object[] = [root];
  for (let container = open.pop(); container !== undefined; container = open.pop()) {
    if (Array.isArray(container)) {
      for (let i = 0; i < container.length; i++) {
        const child: unknown = container[i];
        if (typeof child === 'object' && child !== null) open.push((container[i] = renamed(child, names)));
      }
    } else {
      const members = container as Record<string, unknown>;
      for (const key of Object.keys(members)) {
        const child = members[key];
        if (typeof child !== 'object' || child === null) continue;
        const named = renamed(child, names);
        if (named !== child) members[key] = named;
        open.push(named);
      }
    }
  }
  return root[0];
}

function renamed(container: object, names: ReadonlyMap<string, string>): object {
  if (Array.isArray(container)) return container;
  const keys = Object.keys(container);
  if (!keys.some((key) => names.has(key))) return container;
  const copy: Record<string, unknown> = {};
  for (const key of keys) {
    const value = (container as Record<string, unknown>)[key];
    // The one name whose assignment makes no member.
    if (key === '__proto__') Object.defineProperty(copy, key, { ...dataProperty, value });
    else copy[names.get(key) ?? key] = value;
  }
  return copy;
}

const dataProperty = Object.freeze({ writable: true, enumerable: true, configurable: true });

function afterSpace(text: string, from: number): number {
  for (let at = from; ; at++) {
    const c = text.charCodeAt(at);
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return at;
  }
}
