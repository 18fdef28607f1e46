import { LimitError, MalformedError } from '../runtime/errors.ts';

/** One DER element (X.690 §8): its tag byte, the bytes of its value, and all its bytes with the header. */
export type DerElement = Readonly<{ tag: number; content: Buffer; raw: Buffer }>;

/** Tag bytes of the universal types that certificates and CRLs use. */
export const derTag = Object.freeze({
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
});

/**
 * Reads the element that starts at `offset`. Strict, so that no second reader can see another structure in the same
 * bytes: definite lengths in their shortest form, one-byte tags. Throws MalformedError.
 */
export function readDer(bytes: Buffer, offset = 0): DerElement {
  const tag = bytes[offset];
  const first = bytes[offset + 1];
  if (tag === undefined || first === undefined) throw new MalformedError('DER ends inside a header');
  if ((tag & 0x1f) === 0x1f) throw new MalformedError('DER has a tag of more than one byte');
  let start = offset + 2;
  let length = first;
  if (first >= 0x80) {
    const size = first & 0x7f;
    if (size === 0) throw new MalformedError('DER has an indefinite length');
    if (size > 4) throw new MalformedError('DER has a length of more than four bytes');
    if (start + size > bytes.length) throw new MalformedError('DER ends inside a header');
    length = bytes.readUIntBE(start, size);
    if (length < 0x80 || bytes[start] === 0) {
      throw new MalformedError('DER has a length that is not in its shortest form');
    }
    start += size;
  }
  const end = start + length;
  if (end > bytes.length) throw new MalformedError('DER ends inside a value');
  return { tag, content: bytes.subarray(start, end), raw: bytes.subarray(offset, end) };
}

/** Reads the only element of `bytes`; MalformedError when its tag is another or bytes follow it. */
export function readSingleDer(bytes: Buffer, tag: number): DerElement {
  const element = expectTag(readDer(bytes), tag);
  if (element.raw.length !== bytes.length) throw new MalformedError('DER is followed by other bytes');
  return element;
}

/** Splits concatenated elements, for instance the content of a SEQUENCE; LimitError beyond `maxCount`. */
export function splitDer(bytes: Buffer, maxCount = Number.POSITIVE_INFINITY): readonly DerElement[] {
  const elements: DerElement[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    if (elements.length >= maxCount) throw new LimitError(`DER has more than ${maxCount} elements`);
    const element = readDer(bytes, offset);
    elements.push(element);
    offset += element.raw.length;
  }
  return elements;
}

/** `element` itself when it is there and has the tag; MalformedError otherwise. */
export function expectTag(element: DerElement | undefined, tag: number): DerElement {
  if (element === undefined) throw new MalformedError('DER lacks an element');
  if (element.tag !== tag) {
    throw new MalformedError(`DER has tag 0x${element.tag.toString(16)} where 0x${tag.toString(16)} belongs`);
  }
  return element;
}

/** The dotted text of an OBJECT IDENTIFIER's content (X.690 §8.19). */
export function decodeOid(content: Buffer): string {
  const arcs: number[] = [];
  let value = 0;
  let inside = false;
  for (const byte of content) {
    if (!inside && byte === 0x80) throw new MalformedError('OID has a padded arc');
    value = value * 128 + (byte & 0x7f);
    if (value > Number.MAX_SAFE_INTEGER) throw new MalformedError('OID has an arc that is too large');
    inside = (byte & 0x80) !== 0;
    if (!inside) {
      if (arcs.length === 0) {
        const root = Math.min(2, Math.floor(value / 40));
        arcs.push(root, value - root * 40);
      } else {
        arcs.push(value);
      }
      value = 0;
    }
  }
  if (inside || arcs.length === 0) throw new MalformedError('OID is cut short');
  return arcs.join('.');
}

/** A BOOLEAN's content (X.690 §11.1). */
export function decodeBoolean(content: Buffer): boolean {
  if (content.length !== 1 || (content[0] !== 0x00 && content[0] !== 0xff)) {
    throw new MalformedError('DER has a boolean that is neither 00 nor ff');
  }
  return content[0] === 0xff;
}

/** A non-negative INTEGER's content as lower-case hex without leading zeros (X.690 §8.3). */
export function decodeUnsignedHex(content: Buffer): string {
  const [first, second] = content;
  if (first === undefined) throw new MalformedError('DER has an empty integer');
  if (first >= 0x80) throw new MalformedError('DER has a negative integer where none may be');
  if (first === 0 && second !== undefined && second < 0x80) {
    throw new MalformedError('DER has an integer that is not in its shortest form');
  }
  return content.toString('hex').replace(/^0+(?=.)/, '');
}

/** A BIT STRING's content as the set of numbers of its one bits, bit 0 first (X.690 §8.6, §11.2). */
export function decodeNamedBits(content: Buffer): ReadonlySet<number> {
  const [unused, ...bytes] = content;
  if (unused === undefined || unused > 7 || (bytes.length === 0 && unused !== 0)) {
    throw new MalformedError('DER has a broken bit string');
  }
  const bits = new Set<number>();
  bytes.forEach((byte, index) => {
    for (let bit = 0; bit < 8; bit += 1) if ((byte & (0x80 >> bit)) !== 0) bits.add(index * 8 + bit);
  });
  for (let pad = 0; pad < unused; pad += 1) {
    if (bits.has(bytes.length * 8 - 1 - pad))
      throw new MalformedError('DER has a bit string with padding bits set');
  }
  return bits;
}

const utcTime = /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/;
const generalizedTime = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/;

/** A time in one of the two forms that RFC 5280 §4.1.2.5 allows, in milliseconds since the epoch. */
export function decodeTime(element: DerElement | undefined): number {
  if (element === undefined) throw new MalformedError('DER lacks an element');
  const utc = element.tag === derTag.utcTime;
  if (!utc) expectTag(element, derTag.generalizedTime);
  const match = (utc ? utcTime : generalizedTime).exec(element.content.toString('latin1'));
  if (match === null) throw new MalformedError('DER has a time in a form that RFC 5280 forbids');
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match.slice(1).map(Number);
  const fullYear = utc ? year + (year >= 50 ? 1900 : 2000) : year;
  const date = new Date(0);
  date.setUTCFullYear(fullYear, month - 1, day);
  date.setUTCHours(hour, minute, second);
  if (
    date.getUTCDate() !== day ||
    date.getUTCMonth() !== month - 1 ||
    hour > 23 ||
    minute > 59 ||
    second > 59
  ) {
    throw new MalformedError('DER has a time that does not exist');
  }
  return date.getTime();
}
