import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { type Captures, compilePattern, matchPattern, type QueryPattern } from './query-pattern.ts';

/** A `match` of the configuration. Every key that is given must fit; one without keys fits every request. */
export type MatchSpec = Readonly<{
  peer?: string | undefined;
  method?: readonly string[] | undefined;
  path?: string | undefined;
  host?: string | undefined;
  /** Context extensions of the route, each equal to the value here. */
  context?: Readonly<Record<string, string>> | undefined;
}>;

/** What a Check is matched on; what it lacks (a TCP request has no method) matches no key. */
export type QueryRequest = Readonly<{
  peerId?: string | undefined;
  method?: string | undefined;
  /** As sent, query string included. */
  path?: string | undefined;
  host?: string | undefined;
  contextExtensions?: Readonly<Record<string, string>> | undefined;
}>;

/** A request with path and host as they are matched; made once, however many matches it meets. */
export type MatchSubject = Readonly<{
  request: QueryRequest;
  path: string | undefined;
  host: string | undefined;
}>;

export type RequestMatch = Readonly<{
  peer: QueryPattern | undefined;
  methods: ReadonlySet<string> | undefined;
  path: QueryPattern | undefined;
  host: QueryPattern | undefined;
  context: readonly (readonly [string, string])[];
}>;

/** Takes problems of the configuration: the key path first, then what is wrong there. */
export type Report = (path: string) => (message: string) => void;

export const unsafePathMessage =
  'path has dot segments, double slashes, a backslash, a # or an escape that hides a slash, a zero byte or a plain character';

/**
 * Compiles the match at key path `at`. What is wrong with it is reported, and what is compiled then must not be used.
 */
export function compileMatch(spec: MatchSpec, at: string, report: Report): RequestMatch {
  const peer = pattern(spec.peer, true, report(`${at}.peer`));
  checkPeer(spec.peer, report(`${at}.peer`));
  const path = pattern(spec.path, true, report(`${at}.path`));
  if (spec.path !== undefined && !/^[/*]/.test(spec.path)) report(`${at}.path`)('does not start with / or *');
  if (spec.path?.includes('?')) report(`${at}.path`)('is matched without the query string, so ? never fits');
  if (spec.path !== undefined && isUnsafePath(spec.path)) report(`${at}.path`)(unsafePathMessage);
  if (spec.method?.length === 0) report(`${at}.method`)('lists no method');
  spec.method?.forEach((method, i) => {
    if (!/^[A-Z][A-Z0-9_-]*$/.test(method))
      report(`${at}.method[${i}]`)('is not an HTTP method in upper case');
  });
  if (spec.host !== undefined && (/[A-Z/]/.test(spec.host) || /\.$|:\d*$/.test(spec.host))) {
    report(`${at}.host`)('is matched in lower case without the port or a final dot');
  }
  for (const name of peer?.names ?? []) {
    if (path?.names.includes(name)) report(`${at}.path`)(`:${name} is captured by peer already`);
  }
  return Object.freeze({
    peer,
    methods: spec.method === undefined ? undefined : new Set(spec.method),
    path,
    host: pattern(spec.host, false, report(`${at}.host`)),
    context: Object.entries(spec.context ?? {}),
  });
}

/** The names of what a match captures. */
export function captureNames({ peer, path }: RequestMatch): ReadonlySet<string> {
  return new Set([...(peer?.names ?? []), ...(path?.names ?? [])]);
}

export function matchSubject(request: QueryRequest): MatchSubject {
  const path = request.path === undefined || request.path === '' ? undefined : withoutQuery(request.path);
  return { request, path, host: hostOf(request.host) };
}

/** What was captured when every key fits, else undefined. */
export function matchRequest(
  match: RequestMatch,
  { request, path, host }: MatchSubject,
): Captures | undefined {
  if (match.methods !== undefined && !match.methods.has(request.method ?? '')) return undefined;
  const inPeer = matchKey(match.peer, request.peerId);
  if (inPeer === undefined) return undefined;
  const inPath = matchKey(match.path, path);
  if (inPath === undefined || matchKey(match.host, host) === undefined) return undefined;
  const extensions = request.contextExtensions ?? noCaptures;
  for (const [key, value] of match.context) {
    if (!Object.hasOwn(extensions, key) || extensions[key] !== value) return undefined;
  }
  return match.peer === undefined ? inPath : Object.freeze({ ...inPeer, ...inPath });
}

/**
 * Paths on which an upstream and a policy may disagree about where they lead. To a server `/%61dmin` is `/admin`
 * (RFC 3986 §2.3): letters, digits and `-._~` need no escape, so one that has it would only get past a pattern. Servers
 * that take `;` for the start of parameters cut it off first, and `..;` is `..` to them.
 */
export function isUnsafePath(path: string): boolean {
  return /\/\/|[\\#]|%(?:2[def]|3\d|[46][1-9a-f]|[57][\da]|5[cf]|7e|00)|(?:^|\/)\.\.?(?:[/;]|$)/i.test(path);
}

const noCaptures: Captures = Object.freeze({});

function matchKey(key: QueryPattern | undefined, text: string | undefined): Captures | undefined {
  if (key === undefined) return noCaptures;
  return text === undefined || text === '' ? undefined : matchPattern(key, text);
}

function withoutQuery(path: string): string {
  const question = path.indexOf('?');
  return question === -1 ? path : path.slice(0, question);
}

/** Lower case, without the port and the dot of the DNS root; the brackets of an IPv6 address stay. */
function hostOf(host: string | undefined): string | undefined {
  if (host === undefined || host === '') return undefined;
  const end = host.startsWith('[') ? host.indexOf(']') + 1 : host.lastIndexOf(':');
  return (end > 0 ? host.slice(0, end) : host).toLowerCase().replace(/\.$/, '');
}

function pattern(
  text: string | undefined,
  segments: boolean,
  report: (message: string) => void,
): QueryPattern | undefined {
  if (text === undefined) return undefined;
  const compiled = text === '' ? 'is empty' : compilePattern(text, segments);
  if (typeof compiled !== 'string') return compiled;
  report(compiled);
  return undefined;
}

/** The trust domain is literal: a pattern that spans domains would let any federated one in. */
function checkPeer(text: string | undefined, report: (message: string) => void): void {
  if (text === undefined) return;
  const domain = /^spiffe:\/\/([^/]*)/.exec(text)?.[1];
  if (domain === undefined) {
    report('does not start with spiffe://');
    return;
  }
  try {
    parseTrustDomain(domain);
  } catch {
    report('has no literal, valid trust domain');
  }
}
