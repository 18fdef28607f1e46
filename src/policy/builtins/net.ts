import { type Builtins, boundedCount, elements, refuse, text } from './args.ts';
import { type Cidr, formatAddress, lastOf, parseAddress, parseCidr, requireCidr } from './cidr.ts';
import { setOf, type Value } from './value.ts';

type Entry = Readonly<{ written: string; key: Value }>;
type Range = { first: bigint; last: bigint; bits: number; merged: boolean; prefix: number };

/** Most addresses that `net.cidr_expand` lists. */
const maxAddresses = 65_536;

/** `net.cidr_*` that the module does not hold itself. */
export const netBuiltins: Builtins = {
  'net.cidr_is_valid': ([cidr = null]) => typeof cidr === 'string' && parseCidr(cidr) !== undefined,
  'net.cidr_expand': (args) => {
    const { first, bits, prefix } = requireCidr(text(args, 0));
    const count = 2 ** (bits - prefix);
    boundedCount(count > maxAddresses ? Infinity : count);
    return new Set(Array.from({ length: count }, (_, index) => formatAddress(first + BigInt(index), bits)));
  },
  'net.cidr_contains_matches': (args) => {
    const [blocks, others] = [entries(args[0] ?? null), entries(args[1] ?? null)];
    boundedCount(blocks.length * others.length);
    const found: Value[] = [];
    for (const block of blocks) {
      for (const other of others) {
        if (contains(requireCidr(block.written), other.written)) found.push([block.key, other.key]);
      }
    }
    return setOf(found);
  },
  'net.cidr_merge': (args) => {
    const ranges = elements(args, 0).map((one) => rangeOf(text([one], 0)));
    return setOf(merge(ranges).flatMap(blocksOf).map(formatCidr));
  },
};

function entries(value: Value): readonly Entry[] {
  const entry = (one: Value, key: Value): Entry => {
    const written = Array.isArray(one) ? (one as readonly Value[])[0] : one;
    return typeof written === 'string'
      ? { written, key }
      : refuse('element must be a string or an array of strings');
  };
  if (typeof value === 'string') return [{ written: value, key: value }];
  if (Array.isArray(value)) return (value as readonly Value[]).map((one, index) => entry(one, index));
  if (value instanceof Set) return [...(value as ReadonlySet<Value>)].map((one) => entry(one, one));
  if (value instanceof Map)
    return [...(value as ReadonlyMap<Value, Value>)].map(([key, one]) => entry(one, key));
  return [];
}

function contains(block: Cidr, written: string): boolean {
  const address = parseAddress(written);
  if (address !== undefined) {
    return address.bits === block.bits && address.value >= block.first && address.value <= lastOf(block);
  }
  const other = requireCidr(written);
  return other.bits === block.bits && other.first >= block.first && lastOf(other) <= lastOf(block);
}

/** A bare IPv4 address stands for the network of its old class. */
function rangeOf(written: string): Range {
  const address = parseAddress(written);
  if (address === undefined) {
    const block = requireCidr(written);
    return { ...block, last: lastOf(block), merged: false };
  }
  const { value, bits } = address;
  if (bits === 128) return refuse('an IPv6 address needs a prefix length');
  const top = Number(value >> 24n);
  const prefix = top < 128 ? 8 : top < 192 ? 16 : top < 240 ? 24 : refuse('address is of no class');
  const last = value | ((1n << BigInt(32 - prefix)) - 1n);
  return { first: (value >> BigInt(32 - prefix)) << BigInt(32 - prefix), last, bits, merged: false, prefix };
}

function merge(ranges: readonly Range[]): readonly Range[] {
  const ordered = [...ranges].sort(
    (a, b) =>
      a.bits - b.bits || Number(a.last > b.last) - Number(a.last < b.last) || Number(a.first - b.first),
  );
  const merged: Range[] = [];
  for (const range of ordered.reverse()) {
    const after = merged.at(-1);
    if (after?.bits === range.bits && after.first - 1n <= range.last) {
      if (range.first < after.first) after.first = range.first;
      after.merged = true;
    } else {
      merged.push({ ...range });
    }
  }
  return merged;
}

/** The fewest blocks that cover a range. */
function blocksOf({ first, last, bits }: Range): readonly Cidr[] {
  const blocks: Cidr[] = [];
  for (let at = first; at <= last; ) {
    let host = 0n;
    while (host < BigInt(bits) && at % (2n << host) === 0n && at + (2n << host) - 1n <= last) host++;
    blocks.push({ first: at, bits, prefix: bits - Number(host) });
    at += 1n << host;
  }
  return blocks;
}

function formatCidr({ first, bits, prefix }: Cidr): string {
  return `${formatAddress(first, bits)}/${prefix}`;
}
