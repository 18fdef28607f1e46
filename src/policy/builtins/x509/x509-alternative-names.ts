import { refuse } from '../args.ts';
import { createDerCursor, enter } from '../der-cursor.ts';
import { type GoUrl, parseUrl } from '../go-url.ts';
import { isAscii } from './x509-name.ts';

/** Subject alternative names (RFC 5280 §4.2.1.6) of the four kinds that Go reads. */
export type AlternativeNames = Readonly<{
  dns: readonly string[];
  emails: readonly string[];
  /** Of 4 or 16 bytes. */
  addresses: readonly Buffer[];
  urls: readonly GoUrl[];
}>;

export const noNames: AlternativeNames = Object.freeze({ dns: [], emails: [], addresses: [], urls: [] });

/** Tag bytes of a GeneralName. */
export const nameTag = Object.freeze({ email: 0x81, dns: 0x82, uri: 0x86, address: 0x87 });

/** Reads the extension's value. Throws MalformedError. */
export function readAlternativeNames(value: Buffer): AlternativeNames {
  const dns: string[] = [];
  const emails: string[] = [];
  const addresses: Buffer[] = [];
  const urls: GoUrl[] = [];
  const names = enter(createDerCursor(value));
  while (!names.isEmpty()) {
    const { tag, content } = names.any();
    if (tag === nameTag.email) emails.push(readAscii(content));
    if (tag === nameTag.dns) dns.push(readAscii(content));
    if (tag === nameTag.uri) urls.push(readUrl(readAscii(content)));
    if (tag === nameTag.address) {
      if (content.length !== 4 && content.length !== 16) return refuse('IP address has another length');
      addresses.push(content);
    }
  }
  return { dns, emails, addresses, urls };
}

export function isEmpty({ dns, emails, addresses, urls }: AlternativeNames): boolean {
  return dns.length + emails.length + addresses.length + urls.length === 0;
}

export function readAscii(content: Buffer): string {
  return isAscii(content) ? content.toString('latin1') : refuse('name has a character beyond ASCII');
}

function readUrl(written: string): GoUrl {
  const url = parseUrl(written);
  return isDomain(url.host) ? url : refuse('host of a URI is no domain');
}

/** What Go takes for a domain name, which is much; `constraint`: it may begin with a dot. Empty counts. */
export function isDomain(name: string, constraint = false): boolean {
  const labels = constraint && name.startsWith('.') ? name.slice(1) : name;
  return name === '' || (labels !== '' && labels.split('.').every((label) => /^[!-~]+$/.test(label)));
}
