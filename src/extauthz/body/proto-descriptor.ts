import { MalformedError } from '../../runtime/errors.ts';
import { readFields, type WireField } from './proto-wire.ts';

/** A field of a message type; `type` is the number that descriptor.proto gives its type. */
export type ProtoField = Readonly<{
  number: number;
  jsonName: string;
  type: number;
  /** Full name of its message or enum type; empty for scalars. */
  typeName: string;
  repeated: boolean;
  required: boolean;
  /** False for a scalar of proto3, whose zero cannot be told from its absence. */
  hasPresence: boolean;
  oneof: number | undefined;
}>;

export type ProtoMessage = Readonly<{
  name: string;
  fields: ReadonlyMap<number, ProtoField>;
  /** True for the entries that a map is made of on the wire. */
  isMapEntry: boolean;
}>;

/** What a FileDescriptorSet says of messages, enums and methods; names without a leading dot. */
export type ProtoTypes = Readonly<{
  messages: ReadonlyMap<string, ProtoMessage>;
  /** By type, the name of each value. */
  enums: ReadonlyMap<string, ReadonlyMap<number, string>>;
  /** By `package.Service/Method`, the message type that a client sends, once or as a stream. */
  methods: ReadonlyMap<string, Readonly<{ input: string; clientStreaming: boolean }>>;
}>;

type Tables = {
  messages: Map<string, ProtoMessage>;
  enums: Map<string, ReadonlyMap<number, string>>;
  methods: Map<string, Readonly<{ input: string; clientStreaming: boolean }>>;
};

/**
 * Reads a serialized `google.protobuf.FileDescriptorSet`, such as `protoc --include_imports --descriptor_set_out` writes.
 * Throws MalformedError when it is none, or when it names a type that it does not hold.
 */
export function parseDescriptorSet(bytes: Buffer): ProtoTypes {
  const tables: Tables = { messages: new Map(), enums: new Map(), methods: new Map() };
  for (const file of of(bytes, 1)) readFile(file.bytes, tables);
  if (tables.messages.size === 0) throw new MalformedError('descriptor set has no message types');
  const find = (written: string, user: string): string => {
    const found = scopesOf(written, user).find((name) => tables.messages.has(name) || tables.enums.has(name));
    if (found !== undefined) return found;
    throw new MalformedError(
      `descriptor set lacks ${written}, which ${user} uses: write it with --include_imports`,
    );
  };
  for (const [name, message] of tables.messages) {
    const fields = [...message.fields].map(([number, field]): [number, ProtoField] => [
      number,
      field.typeName === '' ? field : { ...field, typeName: find(field.typeName, name) },
    ]);
    tables.messages.set(name, { ...message, fields: new Map(fields) });
  }
  for (const [name, { input, clientStreaming }] of tables.methods) {
    tables.methods.set(name, { input: find(input, name.replace('/', '.')), clientStreaming });
  }
  return Object.freeze(tables);
}

function readFile(bytes: Buffer, tables: Tables): void {
  const scope = textOf(bytes, 2);
  // Files of an edition have presence unless they say otherwise, which shows only in zeros that were sent.
  const implicit = textOf(bytes, 12) === 'proto3';
  for (const message of of(bytes, 4)) readMessage(message.bytes, scope, implicit, tables);
  for (const entry of of(bytes, 5)) readEnum(entry.bytes, scope, tables);
  for (const { bytes: service } of of(bytes, 6)) {
    const name = qualify(scope, textOf(service, 1));
    for (const { bytes: method } of of(service, 2)) {
      tables.methods.set(`${name}/${textOf(method, 1)}`, {
        input: textOf(method, 2),
        clientStreaming: numberOf(method, 5) === 1,
      });
    }
  }
}

function readMessage(bytes: Buffer, scope: string, implicit: boolean, tables: Tables): void {
  const name = qualify(scope, textOf(bytes, 1));
  const fields = new Map<number, ProtoField>();
  for (const { bytes: field } of of(bytes, 2)) {
    const read = readField(field, implicit);
    fields.set(read.number, read);
  }
  const options = last(bytes, 7)?.bytes ?? Buffer.alloc(0);
  tables.messages.set(name, { name, fields, isMapEntry: numberOf(options, 7) === 1 });
  for (const nested of of(bytes, 3)) readMessage(nested.bytes, name, implicit, tables);
  for (const nested of of(bytes, 4)) readEnum(nested.bytes, name, tables);
}

const labelRequired = 2;
const labelRepeated = 3;

function readField(bytes: Buffer, implicit: boolean): ProtoField {
  const name = textOf(bytes, 1);
  const label = numberOf(bytes, 4);
  const typeName = textOf(bytes, 6);
  const oneof = last(bytes, 9) === undefined ? undefined : numberOf(bytes, 9);
  const type = numberOf(bytes, 5);
  return {
    number: numberOf(bytes, 3),
    jsonName: textOf(bytes, 10) || lowerCamel(name),
    type,
    typeName,
    repeated: label === labelRepeated,
    required: label === labelRequired,
    hasPresence: !implicit || oneof !== undefined || type === 11,
    oneof,
  };
}

function readEnum(bytes: Buffer, scope: string, tables: Tables): void {
  const values = new Map<number, string>();
  for (const { bytes: value } of of(bytes, 2)) {
    const number = numberOf(value, 2);
    // Of aliases the first is the name.
    if (!values.has(number)) values.set(number, textOf(value, 1));
  }
  tables.enums.set(qualify(scope, textOf(bytes, 1)), values);
}

/** `foo_bar` → `fooBar`, as protoc makes JSON names. */
export function lowerCamel(name: string): string {
  return name.replaceAll(/_+([a-z])?/g, (_, letter: string | undefined) => letter?.toUpperCase() ?? '');
}

function of(bytes: Buffer, number: number): WireField[] {
  return [...readFields(bytes)].filter((field) => field.number === number);
}

function last(bytes: Buffer, number: number): WireField | undefined {
  return of(bytes, number).at(-1);
}

function textOf(bytes: Buffer, number: number): string {
  return last(bytes, number)?.bytes.toString('utf8') ?? '';
}

function numberOf(bytes: Buffer, number: number): number {
  return Number(BigInt.asIntN(32, last(bytes, number)?.bits ?? 0n));
}

/** The full names that one written in `user` can mean: with a leading dot itself, else the innermost scope first. */
function scopesOf(written: string, user: string): string[] {
  if (written.startsWith('.')) return [written.slice(1)];
  const scopes = user.split('.');
  return [...scopes.keys(), scopes.length]
    .toReversed()
    .map((length) => qualify(scopes.slice(0, length).join('.'), written));
}

function qualify(scope: string, name: string): string {
  return scope === '' ? name : `${scope}.${name}`;
}
