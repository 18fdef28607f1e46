import { encodeStruct } from '../extauthz/struct.ts';
import { messageCodec } from '../grpc/protos.ts';
import type { JsonObject } from '../policy/decision.ts';
import { LimitError, MalformedError, messageOf } from '../runtime/errors.ts';
import { parseJson } from '../runtime/parse-json.ts';

const maxTextBytes = 16 * 1024 * 1024;
const maxDepth = 64;

/** Members whose keys are data, not field names. */
const mapFields: ReadonlySet<string> = new Set(['headers', 'contextExtensions', 'labels']);

export type ParsedCheck = Readonly<{
  /** As grpc/protos.ts would have decoded it from the wire. */
  message: unknown;
  /** Key paths that no field of a CheckRequest has, and that were left out. */
  ignored: readonly string[];
}>;

/**
 * Reads a CheckRequest in the JSON form of protobuf: field names in snake_case, as Envoy's documentation and grpcurl have
 * them, or camelCase; `time` in RFC 3339; `raw_body` in base64; filter metadata as plain JSON. It goes over the wire form,
 * so that what is judged is exactly what Envoy could have sent. Throws MalformedError or LimitError.
 */
export function parseCheckJson(text: string): ParsedCheck {
  if (Buffer.byteLength(text) > maxTextBytes) throw new LimitError('CheckRequest is larger than 16 MiB');
  const value = toMessage(readJson(text), '', 0);
  if (!isObject(value)) throw new MalformedError('CheckRequest is not a JSON object');
  const codec = messageCodec('envoy.service.auth.v3.CheckRequest');
  const message = codec.decode(codec.encode(value));
  return Object.freeze({ message, ignored: Object.freeze(unknownKeys(value, message, '')) });
}

function readJson(text: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    throw new MalformedError(`CheckRequest is not JSON: ${messageOf(error)}`, { cause: error });
  }
}

function toMessage(value: unknown, key: string, depth: number): unknown {
  if (depth > maxDepth) throw new LimitError(`CheckRequest is nested deeper than ${maxDepth} levels`);
  if (key === 'time' && typeof value === 'string') return toTimestamp(value);
  if (Array.isArray(value)) return value.map((item) => toMessage(item, '', depth + 1));
  if (!isObject(value)) return value;
  if (key === 'filterMetadata')
    return mapValues(value, (item) => (isObject(item) ? encodeStruct(item) : item));
  // The list of header_map has the name of the map of headers.
  if (mapFields.has(key)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, child]) => {
      const field = camelCase(name);
      return [field, toMessage(child, field, depth + 1)];
    }),
  );
}

function toTimestamp(text: string): object {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new MalformedError('time of the CheckRequest is not in RFC 3339');
  const fraction = /\.(\d{1,9})/.exec(text)?.[1] ?? '';
  return { seconds: Math.floor(ms / 1000), nanos: Number(fraction.padEnd(9, '0')) };
}

/** What was written but has no field: decoding fills every field that there is, so the rest is unknown. */
function unknownKeys(written: unknown, decoded: unknown, path: string): string[] {
  if (!isObject(written)) return [];
  if (!isObject(decoded)) return [];
  return Object.entries(written).flatMap(([key, value]) => {
    const at = path === '' ? key : `${path}.${key}`;
    if (!Object.hasOwn(decoded, key)) return [at];
    return mapFields.has(key) || key === 'filterMetadata' || key === 'time'
      ? []
      : unknownKeys(value, decoded[key], at);
  });
}

function mapValues(value: JsonObject, map: (item: unknown) => unknown): JsonObject {
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, map(item)]));
}

function camelCase(name: string): string {
  return name.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
