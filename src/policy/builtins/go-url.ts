import { isIP } from 'node:net';
import { refuse } from './args.ts';

/** A URL as Go's net/url keeps it. Each text holds one byte a character. */
export type GoUrl = Readonly<{
  scheme: string;
  opaque: string;
  user: Readonly<{ name: string; password: string | undefined }> | undefined;
  host: string;
  path: string;
  /** As written, where escaping the path again would not give that; else empty. */
  rawPath: string;
  rawQuery: string;
  fragment: string;
  rawFragment: string;
  forceQuery: boolean;
  omitHost: boolean;
}>;

/** What stands in a part without an escape, besides letters, digits and `-_.~`. */
const plain = Object.freeze({
  path: '$&+,/:;=@',
  user: '$&+,;=',
  host: '!$&\'()*+,;=:[]<>"',
  fragment: '$&+,/:;=?@!()*',
});
type Part = keyof typeof plain;

function isPlain(character: string, part: Part): boolean {
  return /[A-Za-z0-9\-_.~]/.test(character) || plain[part].includes(character);
}

/** Reads a URL or a relative reference, a byte a character, as Go does. Throws MalformedError. */
export function parseUrl(written: string): GoUrl {
  const [, before = '', fragment = ''] = /^([^#]*)#?(.*)$/s.exec(written) ?? [];
  if (hasControl(before)) return refuse('URL has a control character');
  return { ...parseBeforeFragment(before), ...parsePart(fragment, 'fragment') } as GoUrl;
}

function hasControl(written: string): boolean {
  for (let at = 0; at < written.length; at++) {
    const code = written.charCodeAt(at);
    if (code < 0x20 || code === 0x7f) return true;
  }
  return false;
}

function parseBeforeFragment(written: string): Omit<GoUrl, 'fragment' | 'rawFragment'> {
  const nothing = {
    scheme: '',
    opaque: '',
    user: undefined,
    host: '',
    path: '',
    rawPath: '',
    rawQuery: '',
    forceQuery: false,
    omitHost: false,
  };
  if (written === '*') return { ...nothing, path: '*' };
  if (written.startsWith(':')) return refuse('URL lacks its scheme');
  const [, name = '', rest = written] = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/s.exec(written) ?? [];
  const scheme = name.toLowerCase();
  const question = rest.indexOf('?');
  const forceQuery = question >= 0 && question === rest.length - 1;
  const hier = question < 0 ? rest : rest.slice(0, question);
  const rawQuery = question < 0 ? '' : rest.slice(question + 1);
  const start = { ...nothing, scheme, rawQuery, forceQuery };

  if (!hier.startsWith('/')) {
    if (scheme !== '') return { ...start, opaque: hier };
    if (/^[^/]*:/.test(hier)) return refuse('first segment of a relative URL has a colon');
  }
  if (hier.startsWith('//') && (scheme !== '' || !hier.startsWith('///'))) {
    const [, authority = '', path = ''] = /^\/\/([^/]*)(.*)$/s.exec(hier) ?? [];
    return { ...start, ...parseAuthority(scheme, authority), ...parsePart(path, 'path') };
  }
  return { ...start, omitHost: scheme !== '' && hier.startsWith('/'), ...parsePart(hier, 'path') };
}

function parsePart(written: string, part: 'path' | 'fragment') {
  const text = unescape(written);
  const raw = escape(text, part) === written ? '' : written;
  return part === 'path' ? { path: text, rawPath: raw } : { fragment: text, rawFragment: raw };
}

function parseAuthority(scheme: string, authority: string): Pick<GoUrl, 'user' | 'host'> {
  const at = authority.lastIndexOf('@');
  const host = parseHost(scheme, authority.slice(at + 1));
  if (at < 0) return { user: undefined, host };
  const written = authority.slice(0, at);
  if (!/^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/.test(written)) return refuse('URL has broken user information');
  const colon = written.indexOf(':');
  if (colon < 0) return { user: { name: unescape(written), password: undefined }, host };
  return {
    user: { name: unescape(written.slice(0, colon)), password: unescape(written.slice(colon + 1)) },
    host,
  };
}

const port = /^(?::\d*)?$/;

function parseHost(scheme: string, host: string): string {
  const bracket = host.lastIndexOf('[');
  if (bracket > 0) return refuse('URL has a broken IP literal');
  if (bracket === 0) return parseLiteral(host);
  // Only these two refuse a second colon; databases list several hosts with ports.
  const strict = scheme === 'http' || scheme === 'https';
  const colon = strict ? host.indexOf(':') : host.lastIndexOf(':');
  if (colon >= 0 && !port.test(host.slice(colon))) return refuse('URL has a broken port');
  return unescapeHost(host);
}

function parseLiteral(host: string): string {
  const close = host.lastIndexOf(']');
  if (close < 0 || !port.test(host.slice(close + 1))) return refuse('URL has a broken IP literal');
  const [, address = '', zone = ''] = /^(.*?)((?:%25.*)?)$/s.exec(host.slice(1, close)) ?? [];
  const plainAddress = unescapeHost(address);
  const plainZone = unescapeZone(zone);
  // RFC 6874: the zone stands behind a percent sign; it is none of the address's business.
  if (plainZone === '%' || isIP(plainAddress) !== 6 || plainAddress.includes('%')) {
    return refuse('URL has a broken IP literal');
  }
  return `[${plainAddress}${plainZone}]${host.slice(close + 1)}`;
}

/** Throws MalformedError for `%` without two hexadecimal digits. */
function unescape(written: string): string {
  if (/%(?![\da-fA-F]{2})/.test(written)) return refuse('URL has a broken escape');
  return written.replaceAll(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** RFC 3986 §3.2.2: in a host only bytes beyond ASCII are escaped, and the percent sign before a zone. */
function unescapeHost(written: string): string {
  if (/%(?!25)[0-7]/.test(written)) return refuse('host of a URL has an escape that it does not need');
  requirePlainHost(written);
  return unescape(written);
}

function unescapeZone(written: string): string {
  const needless = [...written.matchAll(/%(?!25)(..)/g)].some(
    ([, hex = '']) => !isPlain(String.fromCharCode(Number.parseInt(hex, 16)), 'host') && hex !== '20',
  );
  if (needless) return refuse('zone of a URL has a character that no host has');
  requirePlainHost(written);
  return unescape(written);
}

function requirePlainHost(written: string): void {
  for (const character of written) {
    if (character < '\x80' && character !== '%' && !isPlain(character, 'host')) {
      refuse('host of a URL has a character that no host has');
    }
  }
}

function escape(text: string, part: Part): string {
  return text.replaceAll(/[^]/g, (character) =>
    isPlain(character, part)
      ? character
      : `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

/** The URL's text, put together from its parts as Go does. */
export function formatUrl(url: GoUrl): string {
  let text = url.scheme === '' ? '' : `${url.scheme}:`;
  if (url.opaque !== '') {
    text += url.opaque;
  } else {
    text += formatAuthority(url);
    const path = escapedPath(url);
    if (path !== '' && !path.startsWith('/') && url.host !== '') text += '/';
    // RFC 3986 §4.2: or the first segment would be read as a scheme.
    if (text === '' && /^[^/]*:/.test(path)) text += './';
    text += path;
  }
  if (url.forceQuery || url.rawQuery !== '') text += `?${url.rawQuery}`;
  if (url.fragment !== '') text += `#${escapedPart(url.fragment, url.rawFragment, 'fragment')}`;
  return text;
}

function formatAuthority({ scheme, host, user, path, omitHost }: GoUrl): string {
  if (scheme === '' && host === '' && user === undefined) return '';
  if (omitHost && host === '' && user === undefined) return '';
  if (host === '' && path === '' && user === undefined) return '';
  const name = user === undefined ? '' : escape(user.name, 'user');
  const password = user?.password === undefined ? '' : `:${escape(user.password, 'user')}`;
  return `//${name}${password}${user === undefined ? '' : '@'}${escape(host, 'host')}`;
}

function escapedPath({ path, rawPath }: GoUrl): string {
  return path === '*' && rawPath === '' ? '*' : escapedPart(path, rawPath, 'path');
}

function escapedPart(text: string, raw: string, part: 'path' | 'fragment'): string {
  const valid = Array.from(raw).every(
    (character) => isPlain(character, part) || "!$&'()*+,;=:@[]%".includes(character),
  );
  return raw !== '' && valid ? raw : escape(text, part);
}

/** Host without port and brackets, and the port. */
export function splitHost(host: string): { hostname: string; port: string } {
  const colon = host.lastIndexOf(':');
  const has = colon >= 0 && port.test(host.slice(colon));
  const name = has ? host.slice(0, colon) : host;
  return {
    hostname: /^\[.*\]$/s.test(name) ? name.slice(1, -1) : name,
    port: has ? host.slice(colon + 1) : '',
  };
}
