import { isIP } from 'node:net';
import { MalformedError } from '../runtime/errors.ts';

/** Where a gRPC server listens or is reached: an absolute socket path, or a host and a port (0: the system picks one). */
export type ListenAddress =
  | Readonly<{ kind: 'unix'; path: string }>
  | Readonly<{ kind: 'tcp'; host: string; port: number }>;

/** What `sun_path` of a unix socket holds on Linux, without the closing NUL. */
export const maxSocketPathBytes = 107;

/**
 * Reads `unix:///absolute/path` or `tcp://HOST:PORT`, where HOST is an IP address (IPv6 in brackets) or `localhost`.
 * Written by hand, because `URL` rewrites paths. Throws MalformedError.
 */
export function parseListenAddress(text: string): ListenAddress {
  if (text.startsWith('unix:')) return parseUnix(text.slice('unix:'.length));
  if (text.startsWith('tcp://')) return parseTcp(text.slice('tcp://'.length));
  throw new MalformedError(
    'address must start with unix:// or tcp://, e.g. unix:///run/svidecar/svidecar.sock',
  );
}

/** The text that `parseListenAddress` reads back to the same address. */
export function formatListenAddress(address: ListenAddress): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  const host = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  return `tcp://${host}:${address.port}`;
}

function parseUnix(rest: string): ListenAddress {
  if (rest.startsWith('//') && !rest.startsWith('///')) {
    throw new MalformedError('unix address must have no host: write three slashes, unix:///path');
  }
  const path = rest.startsWith('///') ? rest.slice(2) : rest;
  if (!path.startsWith('/')) throw new MalformedError('unix address must name an absolute path');
  if (path.startsWith('//'))
    throw new MalformedError('unix address must not start its path with two slashes');
  if (path.endsWith('/')) throw new MalformedError('unix address must name a socket, not a directory');
  // oxlint-disable-next-line no-control-regex -- that is what is looked for
  if (/[\u0000-\u001f\u007f?#]/.test(path)) {
    throw new MalformedError('unix address must not contain control characters, a query or a fragment');
  }
  const bytes = Buffer.byteLength(path);
  if (bytes > maxSocketPathBytes) {
    throw new MalformedError(
      `socket path is ${bytes} bytes long, the system takes ${maxSocketPathBytes}: choose a shorter one`,
    );
  }
  return Object.freeze({ kind: 'unix', path });
}

function parseTcp(rest: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^[\]:/?#@]+)):([0-9]{1,5})$/.exec(rest);
  if (match === null)
    throw new MalformedError('tcp address must be an IP address and a port, e.g. tcp://127.0.0.1:9901');
  const [, ipv6, other, digits] = match;
  const host = ipv6 ?? other ?? '';
  if (ipv6 !== undefined ? isIP(host) !== 6 : isIP(host) !== 4 && host !== 'localhost') {
    throw new MalformedError('tcp address must have an IP address or localhost as its host');
  }
  const port = Number(digits);
  if (port > 65_535) throw new MalformedError('tcp address must have a port of at most 65535');
  return Object.freeze({ kind: 'tcp', host, port });
}
