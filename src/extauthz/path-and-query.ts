import { LimitError, MalformedError } from '../runtime/errors.ts';

const maxQueryParameters = 10_000;

/** Names to the values that came under them, in order; without a prototype. */
export type ParsedQuery = Readonly<Record<string, readonly string[]>>;

/**
 * `parsed_path`: the text before the first `?`, percent-decoded, without leading slashes, split at slashes. A request
 * without a path (TCP, CONNECT) gives one empty segment. Throws MalformedError on a broken escape.
 */
export function parsePath(path: string): readonly string[] {
  const mark = path.indexOf('?');
  const decoded = percentDecode(mark === -1 ? path : path.slice(0, mark), 'path');
  let start = 0;
  while (decoded.charCodeAt(start) === 0x2f) start++;
  return decoded.slice(start).split('/');
}

/** `parsed_query`: the parameters after the first `?`. Throws as parseForm does. */
export function parseQuery(path: string): ParsedQuery {
  const mark = path.indexOf('?');
  return parseForm(mark === -1 ? '' : path.slice(mark + 1), 'query');
}

/**
 * Reads `application/x-www-form-urlencoded` text. `+` is a space; a semicolon or a broken escape is a MalformedError,
 * because servers disagree on what they mean; more than 10 000 parameters are a LimitError.
 */
export function parseForm(text: string, what: string): ParsedQuery {
  const values = Object.create(null) as Record<string, string[]>;
  if (text === '') return values;
  const pairs = text.split('&', maxQueryParameters + 1);
  if (pairs.length > maxQueryParameters) throw new LimitError(`${what} has too many parameters`);
  for (const pair of pairs) {
    if (pair.includes(';')) throw new MalformedError(`${what} has a semicolon between parameters`);
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decodePart(equals === -1 ? pair : pair.slice(0, equals), what);
    const value = equals === -1 ? '' : decodePart(pair.slice(equals + 1), what);
    const before = values[name];
    if (before === undefined) values[name] = [value];
    else before.push(value);
  }
  return values;
}

function decodePart(text: string, what: string): string {
  return percentDecode(text.includes('+') ? text.replaceAll('+', ' ') : text, what);
}

/** Percent-decodes `text`; bytes that are no UTF-8 become U+FFFD. Throws MalformedError on a broken escape. */
export function percentDecode(text: string, what: string): string {
  if (!text.includes('%')) return text;
  if (/%(?![0-9a-fA-F]{2})/.test(text)) throw new MalformedError(`${what} has a broken percent escape`);
  try {
    return decodeURIComponent(text);
  } catch {
    return decodeBytes(text);
  }
}

/** `text` has no broken escape. In place, because a client chooses how many escapes there are. */
function decodeBytes(text: string): string {
  const bytes = Buffer.from(text);
  let to = 0;
  for (let from = 0; from < bytes.length; from++) {
    const byte = bytes[from] ?? 0;
    if (byte === percent) {
      bytes[to++] = (hexDigit(bytes[from + 1]) << 4) | hexDigit(bytes[from + 2]);
      from += 2;
    } else bytes[to++] = byte;
  }
  return bytes.toString('utf8', 0, to);
}

const percent = 0x25;

/** Of an ASCII letter the lower four bits are one for `a`, and so on. */
function hexDigit(code = 0): number {
  return code <= 0x39 ? code & 0xf : (code & 0xf) + 9;
}
