import { isIP } from 'node:net';

/** Where a server listens or is reached: an absolute socket path, or a host and a port (0: the system picks one). */
export type SocketAddress =
  | Readonly<{ kind: 'unix'; path: string }>
  | Readonly<{ kind: 'tcp'; host: string; port: number }>;

/** An IP address and a port; port 0 asks the system for a free one. */
export type HostPort = Readonly<{ host: string; port: number }>;

/** What `sun_path` of a unix socket holds on Linux, without the closing NUL (unix(7)). */
export const maxSocketPathBytes = 107;

export function formatSocketAddress(address: SocketAddress): string {
  return address.kind === 'unix' ? `unix://${address.path}` : `tcp://${formatHostPort(address)}`;
}

export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** True for 127.0.0.0/8 and ::1. */
export function isLoopback(host: string): boolean {
  return host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
