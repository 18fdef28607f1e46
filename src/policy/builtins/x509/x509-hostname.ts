import { parseAddress } from '../cidr.ts';
import type { AlternativeNames } from './x509-alternative-names.ts';

const label = /^[A-Za-z0-9_][A-Za-z0-9_-]*$/;

/** True when the names have this host: a DNS name, of which `*` may stand for the first label, or an IP address. */
export function hasHost({ dns, addresses }: AlternativeNames, host: string): boolean {
  const address = parseAddress(/^\[.+\]$/s.exec(host) === null ? host : host.slice(1, -1));
  if (address !== undefined) {
    return addresses.some((bytes) => {
      const value = BigInt(`0x${bytes.toString('hex')}`);
      const mapped = bytes.length === 16 && value >> 32n === 0xffffn;
      const bits = bytes.length === 4 || mapped ? 32 : 128;
      return bits === address.bits && (mapped ? value & 0xffff_ffffn : value) === address.value;
    });
  }
  const name = lowerAscii(host);
  const bare = name.replace(/\.$/, '');
  return dns.some((pattern) =>
    isHostname(bare, false) && isHostname(pattern, true)
      ? matches(lowerAscii(pattern), bare)
      : pattern !== '' && pattern !== '.' && lowerAscii(pattern) === name,
  );
}

function isHostname(host: string, pattern: boolean): boolean {
  const labels = host.split('.');
  return (
    host !== '*' &&
    labels.every((part, index) => label.test(part) || (pattern && index === 0 && part === '*'))
  );
}

function matches(pattern: string, host: string): boolean {
  const [wanted, labels] = [pattern.split('.'), host.split('.')];
  return (
    wanted.length === labels.length &&
    wanted.every((part, index) => part === labels[index] || (index === 0 && part === '*'))
  );
}

function lowerAscii(text: string): string {
  return text.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
}
