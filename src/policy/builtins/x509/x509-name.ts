import { derTag } from '../../../spiffe/der.ts';
import { refuse } from '../args.ts';
import { createDerCursor, decodeOidNumbers, enter } from '../der-cursor.ts';
import { textOfBytes } from '../go-text.ts';
import type { Value } from '../value.ts';

const setTag = 0x31;
const stringTags = Object.freeze({
  utf8: 0x0c,
  numeric: 0x12,
  printable: 0x13,
  t61: 0x14,
  ia5: 0x16,
  bmp: 0x1e,
});

/** Attributes of a distinguished name that have a field of their own (X.520), by the last arc of `2.5.4`. */
const lists: ReadonlyMap<number, string> = new Map([
  [6, 'Country'],
  [7, 'Locality'],
  [8, 'Province'],
  [9, 'StreetAddress'],
  [10, 'Organization'],
  [11, 'OrganizationalUnit'],
  [17, 'PostalCode'],
]);
const singles: ReadonlyMap<number, string> = new Map([
  [3, 'CommonName'],
  [5, 'SerialNumber'],
]);

/** A distinguished name (DER, RFC 5280 §4.1.2.4) as JSON of Go's pkix.Name. Throws MalformedError. */
export function readName(der: Buffer): Value {
  const fields = new Map<Value, Value>();
  for (const name of lists.values()) fields.set(name, null);
  for (const name of singles.values()) fields.set(name, '');
  const names: Value[] = [];
  const sets = enter(createDerCursor(der));
  while (!sets.isEmpty()) {
    const attributes = enter(sets, setTag);
    while (!attributes.isEmpty()) {
      const attribute = enter(attributes);
      const type = decodeOidNumbers(attribute.take(derTag.oid));
      const { tag, content } = attribute.any();
      const value = readString(tag, content);
      names.push(
        new Map<Value, Value>([
          ['Type', type],
          ['Value', value],
        ]),
      );
      fillField(fields, type, value);
    }
  }
  return fields.set('Names', names.length === 0 ? null : names).set('ExtraNames', null);
}

function fillField(fields: Map<Value, Value>, type: readonly number[], value: string): void {
  const arc = type[3] ?? 0;
  if (type.length !== 4 || !type.join('.').startsWith('2.5.4.')) return;
  const list = lists.get(arc);
  const single = singles.get(arc);
  if (list !== undefined) fields.set(list, [...((fields.get(list) ?? []) as readonly Value[]), value]);
  if (single !== undefined) fields.set(single, value);
}

/** A string of one of the types that Go reads in names; T.61 counts as Latin-1, as everywhere. */
export function readString(tag: number, content: Buffer): string {
  const latin = content.toString('latin1');
  const wellFormed: Readonly<Record<number, () => string | undefined>> = {
    [stringTags.utf8]: () => {
      const text = textOfBytes(content);
      return Buffer.from(text).equals(content) ? text : undefined;
    },
    [stringTags.numeric]: () => (/^[\d ]*$/.test(latin) ? latin : undefined),
    // `*` and `&` are none of its characters, but are found in it.
    [stringTags.printable]: () => (/^[A-Za-z0-9'()+,\-./ :=?*&]*$/.test(latin) ? latin : undefined),
    [stringTags.t61]: () => latin,
    [stringTags.ia5]: () => (isAscii(content) ? latin : undefined),
    [stringTags.bmp]: () => readBmp(content),
  };
  return wellFormed[tag]?.() ?? refuse('name has a string that cannot be read');
}

export function isString(tag: number): boolean {
  return Object.values<number>(stringTags).includes(tag);
}

function readBmp(content: Buffer): string | undefined {
  if (content.length % 2 !== 0) return undefined;
  const text = Buffer.from(content).swap16().toString('utf16le').replace(/\0$/, '');
  return /[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]/.test(text) ? undefined : text;
}

export function isAscii(bytes: Buffer): boolean {
  return bytes.every((byte) => byte < 0x80);
}
