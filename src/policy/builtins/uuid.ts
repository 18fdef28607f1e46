import { type Builtins, refuse, text, whole } from './args.ts';
import type { Value } from './value.ts';

/** `uuid.*`. */
export const uuidBuiltins: Builtins = {
  'uuid.rfc4122': (args, { memory, random }) => {
    const key = `uuid ${text(args, 0)}`;
    const made = memory.get(key) ?? randomUuid(random);
    memory.set(key, made);
    return made;
  },
  'uuid.parse': (args) => parseUuid(text(args, 0)),
};

function randomUuid(random: () => number): string {
  const bytes = Buffer.from(Array.from({ length: 16 }, () => Math.floor(random() * 256)));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

function parseUuid(written: string): Value {
  const dashed = /^(?:urn:uuid:)?([\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12})$/i;
  const inner = /^[\s\S]{38}$/u.test(written) && written.length === 38 ? written.slice(1, -1) : written;
  const hex = dashed.exec(inner)?.[1]?.replaceAll('-', '') ?? /^[\da-f]{32}$/i.exec(written)?.[0];
  if (hex === undefined) return refuse('text is no UUID');
  const bytes = Buffer.from(hex, 'hex');
  const [versionByte = 0, variantByte = 0] = [bytes[6], bytes[8]];
  const version = versionByte >> 4;
  const fields = new Map<Value, Value>([
    ['version', version],
    ['variant', variantOf(variantByte)],
  ]);
  if (version !== 1 && version !== 2) return fields;
  const time = (BigInt(bytes.readUInt16BE(6) & 0x0fff) << 48n) | (BigInt(bytes.readUInt16BE(4)) << 32n);
  // 100 ns ticks since the Gregorian calendar began.
  const ticks = (time | BigInt(bytes.readUInt32BE(0))) - 122_192_928_000_000_000n;
  const node = bytes.subarray(10);
  fields.set('time', whole(BigInt.asIntN(64, ticks * 100n)));
  fields.set('nodeid', (node.toString('hex').match(/../g) ?? []).join('-'));
  fields.set('macvariables', macOf(node[0] ?? 0));
  fields.set('clocksequence', bytes.readUInt16BE(8) & 0x3fff);
  if (version === 2) {
    fields.set('id', bytes.readUInt32BE(0));
    const domain = bytes[9] ?? 0;
    fields.set('domain', ['Person', 'Group', 'Org'][domain] ?? `Domain${domain}`);
  }
  return fields;
}

function variantOf(byte: number): string {
  if ((byte & 0xc0) === 0x80) return 'RFC4122';
  if ((byte & 0xe0) === 0xc0) return 'Microsoft';
  return (byte & 0xe0) === 0xe0 ? 'Future' : 'Reserved';
}

function macOf(byte: number): string {
  return `${(byte & 2) === 0 ? 'global' : 'local'}:${(byte & 1) === 0 ? 'unicast' : 'multicast'}`;
}
