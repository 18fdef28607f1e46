import { isIP } from 'node:net';
import { MalformedError } from '../runtime/errors.ts';
import {
  type HostPort,
  isLoopback,
  maxSocketPathBytes,
  type SocketAddress,
} from '../runtime/socket-address.ts';

const maxUrlLength = 2048;

/**
 * Parses `unix:///path` or `tcp://IP:PORT`. TCP is only for loopback: what these sockets serve (private keys,
 * decisions) has no other protection there. `new URL` is not used because it rewrites paths with dot segments.
 */
export function parseListenAddress(text: string): SocketAddress {
  if (text.startsWith('unix:')) return Object.freeze({ kind: 'unix', path: parseUnixPath(text) });
  if (!text.startsWith('tcp://')) throw new MalformedError('must be unix:///PATH or tcp://IP:PORT');
  const { host, port } = parseHostPort(text.slice('tcp://'.length));
  if (!isLoopback(host)) throw new MalformedError(onLoopback);
  return Object.freeze({ kind: 'tcp', host, port });
}

export const onLoopback = 'must be on loopback when it is tcp, such as tcp://127.0.0.1:9901';

/** Like parseListenAddress, for a socket that may have TLS: whether tcp has to be on loopback is told elsewhere. */
export function parseTlsListenAddress(text: string): SocketAddress {
  if (!text.startsWith('tcp://')) return parseListenAddress(text);
  return Object.freeze({ kind: 'tcp', ...parseHostPort(text.slice('tcp://'.length)) });
}

/** Parses `IP:PORT` or `[IPv6]:PORT`; a host name is refused, because what it resolves to may change. */
export function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (match === null || isIP(host) !== (match[1] === undefined ? 4 : 6)) {
    throw new MalformedError('must be an IP address and a port, such as 127.0.0.1:9902 or [::1]:9902');
  }
  if (port > 65_535) throw new MalformedError('has a port above 65535');
  return Object.freeze({ host, port });
}

/** The path in `unix:///path`; it must be absolute and fit into a socket address. */
export function parseUnixPath(text: string): string {
  const rest = text.slice('unix:'.length);
  if (rest.startsWith('//') && !rest.startsWith('///')) {
    throw new MalformedError(
      `must have an absolute path; write unix:///${rest.slice(2)} for /${rest.slice(2)}`,
    );
  }
  const path = rest.startsWith('///') ? rest.slice(2) : rest;
  if (!path.startsWith('/'))
    throw new MalformedError('must have an absolute path, such as unix:///run/app.sock');
  if (path.endsWith('/')) throw new MalformedError('must name a socket, not a directory');
  // oxlint-disable-next-line no-control-regex -- a NUL byte would cut the path short
  if (/[?#\u0000-\u001f]/.test(path))
    throw new MalformedError('has a query, a fragment or a control character');
  if (Buffer.byteLength(path) > maxSocketPathBytes) {
    throw new MalformedError(
      `has a path longer than the ${maxSocketPathBytes} bytes that a unix socket may have`,
    );
  }
  return path;
}

/**
 * Checks the address of an engine: `http://HOST[:PORT][/PATH]`, `https://…` or `unix:///path`. User name, query and
 * fragment are refused: the first is a secret in the wrong place, the others would be lost.
 */
export function parseEngineUrl(text: string): string {
  if (text.startsWith('unix:')) return `unix://${parseUnixPath(text)}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new MalformedError('must be http://HOST:PORT, https://HOST:PORT or unix:///PATH');
  }
  if (url.username !== '' || url.password !== '')
    throw new MalformedError('must not contain a user name or password');
  if (url.search !== '' || url.hash !== '')
    throw new MalformedError('must not contain a query or a fragment');
  return text;
}

/**
 * Checks where an issuer's keys are: https, or plain http on loopback. Whoever can answer in their place can make
 * himself anybody, so nothing else is good enough.
 */
export function parseJwksUrl(text: string): string {
  return parseSafeUrl(text);
}

/**
 * Checks where a bundle is; whether plain http will do is told elsewhere. The query stays, since some stores need one; it is
 * no place for a secret, because `validate` prints it.
 */
export function parseBundleUrl(text: string): string {
  const url = text.length <= maxUrlLength && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw new MalformedError('must be a URL such as https://bundles.example.org/authz.tar.gz');
  }
  requireNoSecret(url);
  return url.href;
}

/** Whether nobody on the way can read or change what goes to this URL: https, or a loopback IP. */
export function isSafeUrl(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === 'https:' || isLoopback(hostname.replaceAll(/[[\]]/g, ''));
}

/** Checks where records go: https, or plain http on loopback, because they tell who asked for what. */
export function parseServiceUrl(text: string): string {
  const checked = parseSafeUrl(text);
  if (new URL(checked).search !== '')
    throw new MalformedError('must not contain a query: it would be logged');
  return checked;
}

function parseSafeUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || !isSafeUrl(text)) {
    throw new MalformedError('must be https://HOST/PATH, or http:// with a loopback IP');
  }
  requireNoSecret(url);
  return text;
}

function requireNoSecret({ username, password, hash }: URL): void {
  if (username !== '' || password !== '')
    throw new MalformedError('must not contain a user name or password');
  if (hash !== '') throw new MalformedError('must not contain a fragment');
}
