import type { JsonObject } from '../policy/decision.ts';
import { LimitError, MalformedError } from '../runtime/errors.ts';

/** Wire messages are three levels to each level of JSON, and protobufjs reads at most 100. */
const maxDepth = 30;

/** The fields of a decoded `google.protobuf.Struct` as plain JSON; a value without a kind is null. */
export function decodeStructFields(fields: unknown, depth = 0): JsonObject {
  const to = Object.create(null) as Record<string, unknown>;
  if (fields === undefined || fields === null) return to;
  if (typeof fields !== 'object') throw new MalformedError('fields of a struct are not a table');
  if (depth > maxDepth) throw new LimitError(`struct is nested deeper than ${maxDepth} levels`);
  for (const [key, value] of Object.entries(fields)) to[key] = decodeValue(value, depth);
  return to;
}

function decodeValue(message: unknown, depth: number): unknown {
  if (typeof message !== 'object' || message === null) return null;
  const value = message as JsonObject;
  if (typeof value.stringValue === 'string') return value.stringValue;
  if (typeof value.boolValue === 'boolean') return value.boolValue;
  // JSON has no numbers for these; opa-envoy-plugin has the same names.
  if (typeof value.numberValue === 'number') {
    return Number.isFinite(value.numberValue) ? value.numberValue : String(value.numberValue);
  }
  if (isMessage(value.structValue)) return decodeStructFields(value.structValue.fields, depth + 1);
  if (isMessage(value.listValue)) {
    if (depth > maxDepth) throw new LimitError(`struct is nested deeper than ${maxDepth} levels`);
    const values = value.listValue.values;
    return Array.isArray(values) ? values.map((item: unknown) => decodeValue(item, depth + 1)) : [];
  }
  return null;
}

function isMessage(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null;
}

/** The wire form of `google.protobuf.Struct`; what JSON cannot hold (undefined, functions) becomes null. */
export function encodeStruct(value: JsonObject): object {
  const fields = Object.create(null) as Record<string, object>;
  for (const [key, member] of Object.entries(value)) fields[key] = encodeValue(member, 0);
  return { fields };
}

function encodeValue(value: unknown, depth: number): object {
  if (depth > maxDepth) throw new LimitError(`struct is nested deeper than ${maxDepth} levels`);
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number') return { numberValue: value };
  if (typeof value !== 'object' || value === null) return { nullValue: 'NULL_VALUE' };
  if (Array.isArray(value)) {
    return { listValue: { values: value.map((item: unknown) => encodeValue(item, depth + 1)) } };
  }
  const fields = Object.create(null) as Record<string, object>;
  for (const [key, member] of Object.entries(value)) fields[key] = encodeValue(member, depth + 1);
  return { structValue: { fields } };
}
