import { isIP } from 'node:net';
import { refuse } from '../args.ts';
import { createDerCursor, enter } from '../der-cursor.ts';
import { isDomain, nameTag, readAscii } from './x509-alternative-names.ts';
import { parseMailbox } from './x509-mailbox.ts';

/** A network: address and mask of 4 or 16 bytes. */
export type Network = Readonly<{ address: Buffer; mask: Buffer }>;

/** One side, permitted or excluded, of a name constraints extension. */
export type Subtrees = Readonly<{
  dns: readonly string[];
  emails: readonly string[];
  networks: readonly Network[];
  uriDomains: readonly string[];
}>;

/** A name constraints extension (RFC 5280 §4.2.1.10). */
export type NameConstraints = Readonly<{
  permitted: Subtrees;
  excluded: Subtrees;
  /** It also constrains names of a kind that Go does not read. */
  unhandled: boolean;
}>;

const permittedTag = 0xa0;
const excludedTag = 0xa1;

/** Reads the extension's value. Throws MalformedError. */
export function readNameConstraints(value: Buffer): NameConstraints {
  const outer = createDerCursor(value);
  const sides = enter(outer);
  const permitted = sides.optional(permittedTag)?.content ?? Buffer.of();
  const excluded = sides.optional(excludedTag)?.content ?? Buffer.of();
  if (!outer.isEmpty() || !sides.isEmpty() || permitted.length + excluded.length === 0) {
    return refuse('name constraints are broken');
  }
  const [one, other] = [readSubtrees(permitted), readSubtrees(excluded)];
  return { permitted: one.subtrees, excluded: other.subtrees, unhandled: one.unhandled || other.unhandled };
}

function readSubtrees(content: Buffer): { subtrees: Subtrees; unhandled: boolean } {
  const subtrees = {
    dns: [] as string[],
    emails: [] as string[],
    networks: [] as Network[],
    uriDomains: [] as string[],
  };
  let unhandled = false;
  const list = createDerCursor(content);
  while (!list.isEmpty()) {
    const { tag, content: base } = enter(list).any();
    if (tag === nameTag.dns) subtrees.dns.push(readDomain(base));
    else if (tag === nameTag.email) subtrees.emails.push(readEmail(base));
    else if (tag === nameTag.uri) subtrees.uriDomains.push(readUriDomain(base));
    else if (tag === nameTag.address) subtrees.networks.push(readNetwork(base));
    else unhandled = true;
  }
  return { subtrees, unhandled };
}

function readDomain(base: Buffer): string {
  const domain = readAscii(base);
  return isDomain(domain, true) ? domain : refuse('name constraint is no domain');
}

function readEmail(base: Buffer): string {
  const email = readAscii(base);
  const valid = email.includes('@') ? parseMailbox(email) !== undefined : isDomain(email, true);
  return valid ? email : refuse('name constraint is no mailbox');
}

function readUriDomain(base: Buffer): string {
  const domain = readDomain(base);
  return isIP(domain) === 0 ? domain : refuse('name constraint for URIs is an address');
}

function readNetwork(base: Buffer): Network {
  const size = base.length / 2;
  const [address, mask] = [base.subarray(0, size), base.subarray(size)];
  const bits = [...mask].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  if ((size !== 4 && size !== 16) || !/^1*0*$/.test(bits)) return refuse('name constraint is no network');
  return { address, mask };
}
