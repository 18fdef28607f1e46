import { MalformedError } from '../../runtime/errors.ts';
import { lowerCamel } from './proto-descriptor.ts';

type Values = Readonly<Record<string, unknown>>;
type Unpack = (typeName: string, value: Buffer) => unknown;

/** What a wrapper holds when its value is zero. */
const wrapped: Readonly<Record<string, unknown>> = Object.freeze({
  DoubleValue: 0,
  FloatValue: 0,
  Int64Value: '0',
  UInt64Value: '0',
  Int32Value: 0,
  UInt32Value: 0,
  BoolValue: false,
  StringValue: '',
  BytesValue: '',
});

const prefix = 'google.protobuf.';
const ownForm: ReadonlySet<string> = new Set([
  ...Object.keys(wrapped),
  'Timestamp',
  'Duration',
  'FieldMask',
  'Struct',
  'Value',
  'ListValue',
  'Any',
  'Empty',
]);

/**
 * The JSON form of a message: its values, but for the well-known types that have a form of their own. `unpack` reads
 * what an Any holds. Throws MalformedError on a value that has no such form.
 */
export function wellKnown(typeName: string, values: Values, unpack: Unpack): unknown {
  if (!typeName.startsWith(prefix)) return values;
  const name = typeName.slice(prefix.length);
  if (Object.hasOwn(wrapped, name)) return values['value'] ?? wrapped[name];
  if (name === 'Timestamp') return timestamp(values);
  if (name === 'Duration') return duration(values);
  if (name === 'FieldMask') return ((values['paths'] ?? []) as string[]).map(maskPath).join(',');
  if (name === 'Struct') return values['fields'] ?? {};
  if (name === 'ListValue') return values['values'] ?? [];
  if (name === 'Value') return theOnly(values);
  return name === 'Any' ? any(values, unpack) : values;
}

/** Only names that can be told back from their camel case have one: `a__b` and `aB` would read as `a_b`. */
function maskPath(path: string): string {
  if (/[A-Z]|_(?![a-z])/.test(path)) {
    throw new MalformedError(
      'gRPC message has a google.protobuf.FieldMask with a path that has no JSON form',
    );
  }
  return lowerCamel(path);
}

function any(values: Values, unpack: Unpack): unknown {
  const { typeUrl: url, value } = values;
  if (typeof url !== 'string') {
    if (value !== undefined)
      throw new MalformedError('gRPC message has a google.protobuf.Any without a type');
    return {};
  }
  const typeName = url.slice(url.lastIndexOf('/') + 1);
  const content = unpack(typeName, Buffer.from(typeof value === 'string' ? value : '', 'base64'));
  const hasOwnForm = typeName.startsWith(prefix) && ownForm.has(typeName.slice(prefix.length));
  return hasOwnForm ? { '@type': url, value: content } : { '@type': url, ...(content as Values) };
}

function theOnly(values: Values): unknown {
  const [value] = Object.values(values);
  if (value === undefined || (typeof value === 'string' && 'numberValue' in values)) {
    throw new MalformedError('gRPC message has a google.protobuf.Value without a value that JSON has');
  }
  return value;
}

const firstSecond = -62_135_596_800;
const lastSecond = 253_402_300_799;
const longestDuration = 315_576_000_000;

function timestamp(values: Values): string {
  const seconds = Number(values['seconds'] ?? 0);
  const nanos = Number(values['nanos'] ?? 0);
  if (seconds < firstSecond || seconds > lastSecond || nanos < 0 || nanos >= 1e9) {
    throw new MalformedError('gRPC message has a time that is out of range');
  }
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}${fraction(nanos)}Z`;
}

function duration(values: Values): string {
  const seconds = Number(values['seconds'] ?? 0);
  const nanos = Number(values['nanos'] ?? 0);
  if (Math.abs(seconds) > longestDuration || Math.abs(nanos) >= 1e9 || seconds * nanos < 0) {
    throw new MalformedError('gRPC message has a duration that is out of range');
  }
  return `${seconds < 0 || nanos < 0 ? '-' : ''}${Math.abs(seconds)}${fraction(Math.abs(nanos))}s`;
}

/** In thousandths, millionths or billionths, whatever it takes. */
function fraction(nanos: number): string {
  if (nanos === 0) return '';
  return `.${String(nanos)
    .padStart(9, '0')
    .replace(/(?:000){1,2}$/, '')}`;
}
