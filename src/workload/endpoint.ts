import { isIP } from 'node:net';
import { MalformedError } from '../runtime/errors.ts';
import { isLoopback, maxSocketPathBytes, type SocketAddress } from '../runtime/socket-address.ts';

/**
 * Parses the address of a Workload API by Workload Endpoint §4: `unix:///absolute/path.sock` or `tcp://IP:PORT`.
 * Stricter than go-spiffe where the standard is: a unix address with an authority is refused. Every refusal is a
 * MalformedError that names the fault. `new URL()` is not used: it rewrites dot segments and hosts.
 */
export function parseEndpointAddress(text: string): SocketAddress {
  if (text === '') throw refusal('is empty');
  if (!/^[\x21-\x7e\u0080-\uffff]*$/.test(text) || !text.isWellFormed())
    throw refusal('contains a space or a control character');
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1];
  const rest = text.slice((scheme ?? '').length + 1);
  switch (scheme?.toLowerCase()) {
    case 'unix':
      return parseUnix(text, rest);
    case 'tcp':
      return parseTcp(rest);
    case undefined:
      throw refusal(
        `has no scheme: use unix://${text.startsWith('/') ? text : '/path.sock'} or tcp://IP:PORT`,
      );
    default:
      throw refusal(`has the scheme "${scheme}": it must be unix or tcp`);
  }
}

/** True when an endpoint can only be reached from this machine. Beyond it nobody vouches for the caller (§3). */
export function isLocalEndpoint(address: SocketAddress): boolean {
  return address.kind === 'unix' || isLoopback(address.host);
}

function parseUnix(text: string, rest: string): SocketAddress {
  refuseQueryAndFragment(rest, 'unix');
  const { authority, path } = splitAuthority(rest);
  if (authority?.includes('@')) throw refusal('of kind unix must not include user info');
  if (authority !== undefined && authority !== '') {
    throw refusal(
      `of kind unix must not include an authority ("${authority}"): use unix:///${text.slice('unix://'.length)}`,
    );
  }
  if (path === '' || path === '/') throw refusal('of kind unix must include a path');
  if (!path.startsWith('/')) throw refusal(`of kind unix must have an absolute path: use unix:///${path}`);
  const decoded = decodePath(path);
  if (Buffer.byteLength(decoded) > maxSocketPathBytes) {
    throw refusal(
      `of kind unix has a path of more than ${maxSocketPathBytes} bytes, which no socket can have`,
    );
  }
  return Object.freeze({ kind: 'unix', path: decoded });
}

function parseTcp(rest: string): SocketAddress {
  if (!rest.startsWith('//')) throw refusal('of kind tcp must start with tcp://');
  refuseQueryAndFragment(rest, 'tcp');
  const { authority = '', path } = splitAuthority(rest);
  if (authority.includes('@')) throw refusal('of kind tcp must not include user info');
  if (path !== '') throw refusal('of kind tcp must not include a path');
  if (authority === '') throw refusal('of kind tcp must include a host');
  const parts = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/.exec(authority);
  const host = parts?.[1] ?? parts?.[2] ?? '';
  const bracketed = parts?.[1] !== undefined;
  if (parts === null || isIP(host) !== (bracketed ? 6 : 4) || host.includes('%')) {
    throw refusal('of kind tcp must have an IP address as its host, not a name (IPv6 in brackets)');
  }
  const portText = parts[3];
  if (portText === undefined || portText === '') throw refusal('of kind tcp must include a port');
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : 0;
  if (port < 1 || port > 65_535) throw refusal('of kind tcp must have a port from 1 to 65535');
  return Object.freeze({ kind: 'tcp', host, port });
}

/** RFC 3986: an authority is there only behind `//`, and ends at the next slash. */
function splitAuthority(rest: string): { authority: string | undefined; path: string } {
  if (!rest.startsWith('//')) return { authority: undefined, path: rest };
  const slash = rest.indexOf('/', 2);
  if (slash === -1) return { authority: rest.slice(2), path: '' };
  return { authority: rest.slice(2, slash), path: rest.slice(slash) };
}

function refuseQueryAndFragment(rest: string, kind: string): void {
  if (rest.includes('#')) throw refusal(`of kind ${kind} must not include a fragment`);
  if (rest.includes('?')) throw refusal(`of kind ${kind} must not include query values`);
}

function decodePath(path: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch (cause) {
    throw new MalformedError('workload api address has a broken percent-encoding', { cause });
  }
  if (decoded.includes('\0')) throw refusal('of kind unix must not include a NUL byte');
  return decoded;
}

function refusal(what: string): MalformedError {
  return new MalformedError(`workload api address ${what}`);
}
