import type { Struct } from '../grpc/generated/google/protobuf/Struct.ts';
import type { Value } from '../grpc/generated/google/protobuf/Value.ts';

/** A JWT's claims as google.protobuf.Struct. Members that JSON does not have are left out. */
export function buildStruct(claims: Readonly<Record<string, unknown>>): Struct {
  const fields = Object.entries(claims)
    .map(([name, claim]) => [name, buildValue(claim)] as const)
    .filter((field): field is readonly [string, Value] => field[1] !== undefined);
  return { fields: Object.fromEntries(fields) };
}

function buildValue(claim: unknown): Value | undefined {
  if (typeof claim === 'string') return { stringValue: claim };
  if (typeof claim === 'number') return { numberValue: claim };
  if (typeof claim === 'boolean') return { boolValue: claim };
  if (claim === null) return { nullValue: 'NULL_VALUE' };
  if (Array.isArray(claim)) {
    return { listValue: { values: claim.map(buildValue).filter((value) => value !== undefined) } };
  }
  return typeof claim === 'object'
    ? { structValue: buildStruct(claim as Record<string, unknown>) }
    : undefined;
}
