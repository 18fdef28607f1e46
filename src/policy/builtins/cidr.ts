import { isIP } from 'node:net';
import { refuse } from './args.ts';

/** A block of addresses. IPv4 and IPv6 never mix. */
export type Cidr = Readonly<{ first: bigint; bits: number; prefix: number }>;

export function parseAddress(written: string): { value: bigint; bits: number } | undefined {
  const family = isIP(written);
  if (family === 4) {
    return { bits: 32, value: written.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
  }
  if (family !== 6 || written.includes('%')) return undefined;
  const dotted = /^(?<head>.*:)(?<a>\d+)\.(?<b>\d+)\.(?<c>\d+)\.(?<d>\d+)$/.exec(written)?.groups;
  const hex = (high = '0', low = '0'): string => (Number(high) * 256 + Number(low)).toString(16);
  const plain =
    dotted === undefined
      ? written
      : `${dotted['head']}${hex(dotted['a'], dotted['b'])}:${hex(dotted['c'], dotted['d'])}`;
  const [left = '', right] = plain.split('::');
  const head = left === '' ? [] : left.split(':');
  const tail = right === undefined || right === '' ? [] : right.split(':');
  const groups = [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => '0'), ...tail];
  const value = groups.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n);
  // An IPv4 address in IPv6 clothes is the IPv4 address.
  return value >> 32n === 0xffffn ? { value: value & 0xffff_ffffn, bits: 32 } : { value, bits: 128 };
}

export function parseCidr(written: string): Cidr | undefined {
  const [address = '', prefix = '', more] = written.split('/');
  if (more !== undefined || !/^\d{1,3}$/.test(prefix)) return undefined;
  const parsed = parseAddress(address);
  if (parsed === undefined) return undefined;
  const bits = address.includes(':') ? 128 : 32;
  if (Number(prefix) > bits) return undefined;
  const value = bits === 128 && parsed.bits === 32 ? parsed.value | (0xffffn << 32n) : parsed.value;
  const host = BigInt(bits - Number(prefix));
  return { first: (value >> host) << host, bits, prefix: Number(prefix) };
}

export function requireCidr(written: string): Cidr {
  return parseCidr(written) ?? refuse('text is no CIDR');
}

export function lastOf({ first, bits, prefix }: Cidr): bigint {
  return first + (1n << BigInt(bits - prefix)) - 1n;
}

/** The last-known short form (RFC 5952); dotted for IPv4. */
export function formatAddress(value: bigint, bits: number): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.');
  if (value >> 32n === 0xffffn) return formatAddress(value & 0xffff_ffffn, 32);
  const groups = Array.from({ length: 8 }, (_, index) =>
    ((value >> BigInt((7 - index) * 16)) & 0xffffn).toString(16),
  );
  const text = groups.join(':');
  const runs = [...text.matchAll(/(?<![\da-f])0(?::0)+(?![\da-f])/g)].map(([run]) => run);
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '');
  if (longest === '') return text;
  const at = text.search(new RegExp(`(?<![\\da-f])${longest}(?![\\da-f])`));
  return `${text.slice(0, at).replace(/:$/, '')}::${text.slice(at + longest.length).replace(/^:/, '')}`;
}
