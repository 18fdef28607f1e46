import { LimitError, MalformedError } from '../../runtime/errors.ts';
import type { ProtoField, ProtoMessage, ProtoTypes } from './proto-descriptor.ts';
import { wellKnown } from './proto-well-known.ts';
import { readFields, readPacked, type WireField } from './proto-wire.ts';

/** A message as its fields by JSON name, before a well-known type is given its own form. */
export type ProtoValues = Readonly<Record<string, unknown>>;

const maxDepth = 100;
/** A byte on the wire can name an enum value of a hundred; what is made of a body stays in bounds by this. */
const maxValues = 100_000;

/**
 * A message of type `name` in proto3's JSON mapping: JSON names, 64-bit numbers as text, enums by name, bytes in base64,
 * what is not populated left out. Unknown fields are skipped. Throws MalformedError on bytes that are no such message,
 * LimitError beyond 100 levels or 100 000 values.
 */
export function protoToJson(types: ProtoTypes, name: string, bytes: Buffer): unknown {
  const budget = { values: maxValues };
  return toJson(name, bytes, 0);

  function toJson(typeName: string, message: Buffer, depth: number): unknown {
    const type = types.messages.get(typeName);
    if (type === undefined) throw new MalformedError('gRPC message has a part of an unknown type');
    if (depth > maxDepth) throw new LimitError('gRPC message is nested too deep');
    const values = valuesOf(type, message, depth);
    return wellKnown(typeName, values, (packed, value) => toJson(packed, value, depth + 1));
  }

  function valuesOf(type: ProtoMessage, message: Buffer, depth: number): ProtoValues {
    const found = new Map<ProtoField, WireField[]>();
    for (const wire of readFields(message)) {
      const field = type.fields.get(wire.number);
      if (field === undefined || !fits(field, wire)) continue;
      spend();
      if (field.oneof !== undefined) {
        for (const other of found.keys())
          if (other !== field && other.oneof === field.oneof) found.delete(other);
      }
      const before = found.get(field);
      if (before === undefined) found.set(field, [wire]);
      else before.push(wire);
    }
    const values = Object.create(null) as Record<string, unknown>;
    for (const [field, wires] of found) {
      const value = field.repeated ? manyOf(field, wires, depth) : oneOf(field, wires, depth);
      if (value !== undefined) values[field.jsonName] = value;
    }
    for (const field of type.fields.values()) {
      if (field.required && !found.has(field))
        throw new MalformedError('gRPC message lacks a required field');
    }
    return values;
  }

  function oneOf(field: ProtoField, wires: readonly WireField[], depth: number): unknown {
    // Parts of one message are merged, which is what reading them as one comes to.
    if (isMessage(field)) return toJson(field.typeName, joined(wires), depth + 1);
    const wire = wires.at(-1);
    if (wire === undefined || (!field.hasPresence && isZero(wire))) return undefined;
    return scalar(field, wire);
  }

  function manyOf(field: ProtoField, wires: readonly WireField[], depth: number): unknown {
    const entry = isMessage(field) ? types.messages.get(field.typeName) : undefined;
    if (entry?.isMapEntry === true) return mapOf(entry, wires, depth);
    if (isMessage(field)) return wires.map((wire) => toJson(field.typeName, wire.bytes, depth + 1));
    const list: unknown[] = [];
    for (const wire of wires) {
      if (wire.wire !== 2 || isLengthDelimited(field)) list.push(scalar(field, wire));
      else {
        for (const bits of readPacked(wire.bytes, widthOf(field))) {
          spend();
          list.push(scalar(field, { ...wire, bits }));
        }
      }
    }
    return list.length === 0 ? undefined : list;
  }

  function mapOf(entry: ProtoMessage, wires: readonly WireField[], depth: number): unknown {
    const [keyField, valueField] = [entry.fields.get(1), entry.fields.get(2)];
    if (keyField === undefined || valueField === undefined)
      throw new MalformedError('map without key or value');
    const map = Object.create(null) as Record<string, unknown>;
    for (const { bytes: pair } of wires) {
      const parts = [...readFields(pair)];
      const of = (field: ProtoField): WireField[] => {
        const fitting = parts.filter((part) => part.number === field.number && fits(field, part));
        return fitting.length === 0 ? [absent] : fitting;
      };
      const key = scalar(keyField, of(keyField).at(-1) ?? absent);
      const value = oneOf({ ...valueField, hasPresence: true }, of(valueField), depth);
      map[String(key)] = value;
    }
    return map;
  }

  function scalar(field: ProtoField, { bits, bytes: raw }: WireField): unknown {
    if (field.type !== 14) return (scalars[field.type] ?? unsupported)(bits, raw);
    if (field.typeName === 'google.protobuf.NullValue') return null;
    const number = Number(BigInt.asIntN(32, bits));
    return types.enums.get(field.typeName)?.get(number) ?? number;
  }

  function spend(): void {
    if (--budget.values < 0) throw new LimitError('gRPC message has too many values');
  }
}

const absent: WireField = Object.freeze({ number: 0, wire: 0, bits: 0n, bytes: Buffer.alloc(0) });

function joined(wires: readonly WireField[]): Buffer {
  const [only] = wires;
  return wires.length === 1 && only !== undefined
    ? only.bytes
    : Buffer.concat(wires.map(({ bytes }) => bytes));
}

function isMessage({ type }: ProtoField): boolean {
  return type === 10 || type === 11;
}

function isLengthDelimited({ type }: ProtoField): boolean {
  return type === 9 || type === 11 || type === 12;
}

function widthOf({ type }: ProtoField): 4 | 8 | undefined {
  if (type === 1 || type === 6 || type === 16) return 8;
  return type === 2 || type === 7 || type === 15 ? 4 : undefined;
}

/** A field with another wire type than its own is an unknown one. */
function fits(field: ProtoField, { wire }: WireField): boolean {
  if (field.type === 10) return wire === 3;
  if (isLengthDelimited(field)) return wire === 2;
  if (field.repeated && wire === 2) return true;
  const width = widthOf(field);
  return width === undefined ? wire === 0 : wire === (width === 8 ? 1 : 5);
}

function isZero({ bits, bytes }: WireField): boolean {
  return bits === 0n && bytes.length === 0;
}

type Scalar = (bits: bigint, bytes: Buffer) => unknown;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const signed = (bits: bigint): number => Number(BigInt.asIntN(32, bits));
const unsigned = (bits: bigint): number => Number(BigInt.asUintN(32, bits));
const zigzag = (bits: bigint): bigint => (bits >> 1n) ^ -(bits & 1n);

/** By the type numbers of descriptor.proto. */
const scalars: Readonly<Record<number, Scalar>> = Object.freeze({
  1: (bits) => floating(doubleOf(bits)),
  2: (bits) => floating(shortest(floatOf(bits))),
  3: (bits) => BigInt.asIntN(64, bits).toString(),
  4: String,
  5: signed,
  6: String,
  7: unsigned,
  8: (bits) => bits !== 0n,
  9(_, bytes) {
    try {
      return utf8.decode(bytes);
    } catch (cause) {
      throw new MalformedError('gRPC message has a text that is not UTF-8', { cause });
    }
  },
  12: (_, bytes) => bytes.toString('base64'),
  13: unsigned,
  15: signed,
  16: (bits) => BigInt.asIntN(64, bits).toString(),
  17: (bits) => signed(zigzag(BigInt.asUintN(32, bits))),
  18: (bits) => BigInt.asIntN(64, zigzag(bits)).toString(),
} satisfies Record<number, Scalar>);

function unsupported(): never {
  throw new MalformedError('gRPC message has a field of an unknown type');
}

function doubleOf(bits: bigint): number {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(bits);
  return buffer.readDoubleLE();
}

function floatOf(bits: bigint): number {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(Number(BigInt.asUintN(32, bits)));
  return buffer.readFloatLE();
}

/** The shortest decimal that is this float: 0.1, not 0.10000000149011612. */
function shortest(float: number): number {
  if (!Number.isFinite(float)) return float;
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(float.toPrecision(digits));
    if (Math.fround(short) === float) return short;
  }
  return float;
}

/** JSON has no numbers for these. */
function floating(value: number): number | string {
  return Number.isFinite(value) ? value : String(value);
}
