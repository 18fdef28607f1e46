import { type Builtins, object, refuse, text } from './args.ts';
import { toJson, type Value } from './value.ts';

/** `hex.*`, `base64url.encode_no_pad`, `urlquery.*`. */
export const encodingBuiltins: Builtins = {
  'hex.encode': (args) => Buffer.from(text(args, 0)).toString('hex'),
  'hex.decode': (args) => {
    const written = text(args, 0);
    if (!/^(?:[\da-f]{2})*$/i.test(written)) return refuse('text is not hexadecimal');
    return Buffer.from(written, 'hex').toString('utf8');
  },
  'base64url.encode_no_pad': (args) => Buffer.from(text(args, 0)).toString('base64url'),
  'urlquery.encode': (args) => queryEscape(text(args, 0)),
  'urlquery.decode': (args) => queryUnescape(text(args, 0)),
  'urlquery.encode_object': (args) => encodeObject(object(args, 0)),
  'urlquery.decode_object': (args) => decodeObject(text(args, 0)),
};

/** As in a form: a space becomes `+`, everything that RFC 3986 reserves its escape. */
function queryEscape(value: string): string {
  return encodeURIComponent(value.toWellFormed())
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%20/g, '+');
}

/** Throws MalformedError for `%` without two hexadecimal digits. */
function queryUnescape(value: string): string {
  if (/%(?![\da-f]{2})/i.test(value)) return refuse('escape is invalid');
  const spaced = value.replaceAll('+', ' ');
  if (!spaced.includes('%')) return spaced;
  const bytes = spaced.replace(/%([\da-f]{2})|[^%]+/gi, (part, hex: string | undefined) =>
    hex === undefined ? Buffer.from(part).toString('latin1') : String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

function encodeObject(query: ReadonlyMap<Value, Value>): string {
  const pairs = [...(toJson(query) as ReadonlyMap<string, Value>)]
    .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .flatMap(([name, value]) => {
      const values: readonly Value[] = Array.isArray(value) ? value : [value];
      return values.map((_one, index) => `${queryEscape(name)}=${queryEscape(text(values, index))}`);
    });
  return pairs.join('&');
}

function decodeObject(query: string): Value {
  const found = new Map<Value, Value[]>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    if (pair.includes(';')) return refuse('query has a semicolon');
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(pair) ?? [];
    const key = queryUnescape(name);
    const values = found.get(key) ?? [];
    values.push(queryUnescape(value));
    found.set(key, values);
  }
  return found;
}
