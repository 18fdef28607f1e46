import { LimitError, MalformedError } from '../../runtime/errors.ts';

/**
 * One field as it stands on the wire: a varint or fixed-width number as bits, or the bytes of a length-delimited field
 * or a group.
 */
export type WireField = Readonly<{ number: number; wire: 0 | 1 | 2 | 3 | 5; bits: bigint; bytes: Buffer }>;

const maxGroupDepth = 100;
const none = Buffer.alloc(0);

/** The fields of a message of the protobuf encoding, in order. Throws MalformedError when the bytes break off or overlap. */
export function* readFields(bytes: Buffer): Generator<WireField, void, undefined> {
  const reader = createReader(bytes);
  while (!reader.done()) yield reader.field(0);
}

/** The varints, or numbers of `width` bytes, that are packed into one field. Throws as readFields does. */
export function* readPacked(bytes: Buffer, width: 4 | 8 | undefined): Generator<bigint, void, undefined> {
  const reader = createReader(bytes);
  while (!reader.done()) yield width === undefined ? reader.varint() : reader.fixed(width);
}

function createReader(bytes: Buffer) {
  let at = 0;

  function varint(): bigint {
    const first = bytes[at];
    if (first !== undefined && first < 0x80) {
      at++;
      return BigInt(first);
    }
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw brokenOff();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new MalformedError('protobuf message has a number of more than ten bytes');
  }

  function fixed(width: 4 | 8): bigint {
    const start = take(width);
    return width === 4 ? BigInt(bytes.readUInt32LE(start)) : bytes.readBigUInt64LE(start);
  }

  function take(length: number): number {
    const start = at;
    if (length > bytes.length - start) throw brokenOff();
    at += length;
    return start;
  }

  function field(depth: number): WireField {
    const tag = varint();
    const number = Number(tag >> 3n);
    const wire = Number(tag & 7n);
    if (number === 0 || number > 0x1fff_ffff)
      throw new MalformedError('protobuf message has a bad field number');
    if (wire === 0) return { number, wire, bits: varint(), bytes: none };
    if (wire === 1) return { number, wire, bits: fixed(8), bytes: none };
    if (wire === 5) return { number, wire, bits: fixed(4), bytes: none };
    if (wire === 2) {
      const length = Number(varint());
      const start = take(length);
      return { number, wire, bits: 0n, bytes: bytes.subarray(start, start + length) };
    }
    if (wire !== 3) throw new MalformedError('protobuf message has a bad wire type');
    if (depth >= maxGroupDepth) throw new LimitError('protobuf message has groups nested too deep');
    return { number, wire, bits: 0n, bytes: group(number, depth + 1) };
  }

  function group(number: number, depth: number): Buffer {
    const start = at;
    for (;;) {
      const end = at;
      const tag = varint();
      if ((tag & 7n) === 4n) {
        if (Number(tag >> 3n) !== number)
          throw new MalformedError('protobuf message has groups that overlap');
        return bytes.subarray(start, end);
      }
      at = end;
      field(depth);
    }
  }

  return { done: () => at >= bytes.length, varint, fixed, field };
}

function brokenOff(): MalformedError {
  return new MalformedError('protobuf message breaks off');
}
