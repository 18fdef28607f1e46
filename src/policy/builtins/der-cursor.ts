import { MalformedError } from '../../runtime/errors.ts';
import { type DerElement, derTag, expectTag, readDer } from '../../spiffe/der.ts';
import { refuse } from './args.ts';

/** Reads DER elements one after another; what is left over at the end may be ignored, as Go ignores it. */
export type DerCursor = Readonly<{
  isEmpty: () => boolean;
  /** The tag byte of the next element; undefined at the end. */
  peek: () => number | undefined;
  /** The next element, which must have the tag. Throws MalformedError. */
  take: (tag: number) => DerElement;
  /** The next element. Throws MalformedError. */
  any: () => DerElement;
  /** The next element if it has the tag. Throws MalformedError. */
  optional: (tag: number) => DerElement | undefined;
}>;

export function createDerCursor(bytes: Buffer): DerCursor {
  let at = 0;
  const any = (): DerElement => {
    const element = readDer(bytes, at);
    at += element.raw.length;
    return element;
  };
  const peek = (): number | undefined => bytes[at];
  return {
    isEmpty: () => at >= bytes.length,
    peek,
    any,
    take: (tag) => expectTag(any(), tag),
    optional: (tag) => (peek() === tag ? any() : undefined),
  };
}

/** A cursor over the elements inside the next element of `cursor`. */
export function enter(cursor: DerCursor, tag: number = derTag.sequence): DerCursor {
  return createDerCursor(cursor.take(tag).content);
}

/** A SEQUENCE of these elements. */
export function encodeSequence(...elements: readonly Buffer[]): Buffer {
  const content = Buffer.concat(elements);
  const size = content.length.toString(16);
  const bytes = Buffer.from(size.padStart(size.length + (size.length % 2), '0'), 'hex');
  const length = content.length < 0x80 ? bytes : Buffer.concat([Buffer.of(0x80 | bytes.length), bytes]);
  return Buffer.concat([Buffer.of(derTag.sequence), length, content]);
}

/** An INTEGER's content (X.690 §8.3). Throws MalformedError. */
export function decodeInteger(content: Buffer): bigint {
  const [first, second] = content;
  if (first === undefined) return refuse('DER has an empty integer');
  if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))) {
    return refuse('DER has an integer that is not in its shortest form');
  }
  const value = BigInt(`0x${content.toString('hex')}`);
  return first >= 0x80 ? value - (1n << BigInt(content.length * 8)) : value;
}

/** An INTEGER's content that fits 64 bits. Throws MalformedError. */
export function decodeInt64(content: Buffer): bigint {
  if (content.length > 8) return refuse('DER has an integer that is too large');
  return decodeInteger(content);
}

/** A BIT STRING's content without its unused bits: the bytes are shifted to the right end. Throws MalformedError. */
export function decodeBits(content: Buffer): { bytes: Buffer; unused: number } {
  const unused = content[0] ?? 8;
  const bytes = content.subarray(1);
  const last = bytes.at(-1) ?? 0;
  if (unused > 7 || (bytes.length === 0 && unused > 0) || (last & ((1 << unused) - 1)) !== 0) {
    return refuse('DER has a broken bit string');
  }
  return { bytes, unused };
}

/** A BIT STRING's content as Go's RightAlign has it. Throws MalformedError. */
export function decodeAlignedBits(content: Buffer): Buffer {
  const { bytes, unused } = decodeBits(content);
  if (unused === 0) return bytes;
  return Buffer.from(
    bytes.map((byte, index) => (byte >> unused) | ((bytes[index - 1] ?? 0) << (8 - unused))),
  );
}

const largestArc = 0x7fff_ffffn;

/** The arcs of an OBJECT IDENTIFIER's content (X.690 §8.19), of any size. Throws MalformedError. */
export function decodeArcs(content: Buffer): readonly bigint[] {
  const values: bigint[] = [];
  let value = 0n;
  let inside = false;
  for (const byte of content) {
    if (!inside && byte === 0x80) throw new MalformedError('OID has a padded arc');
    value = (value << 7n) | BigInt(byte & 0x7f);
    inside = byte >= 0x80;
    if (!inside) {
      values.push(value);
      value = 0n;
    }
  }
  const [first, ...rest] = values;
  if (inside || first === undefined) throw new MalformedError('OID is cut short');
  const root = first < 80n ? first / 40n : 2n;
  return [root, first - root * 40n, ...rest];
}

/** True when Go keeps the OBJECT IDENTIFIER as a list of numbers: each of the encoded ones has 31 bits. */
export function isSmallOid(arcs: readonly bigint[]): boolean {
  const [root = 0n, second = 0n, ...rest] = arcs;
  return root * 40n + second <= largestArc && rest.every((arc) => arc <= largestArc);
}

/** The arcs of an OBJECT IDENTIFIER, as numbers. Throws MalformedError for one that Go does not read. */
export function decodeOidNumbers(element: DerElement): readonly number[] {
  const arcs = decodeArcs(expectTag(element, derTag.oid).content);
  if (!isSmallOid(arcs)) return refuse('OID has an arc that is too large');
  return arcs.map(Number);
}
