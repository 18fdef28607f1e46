import { ConfigError, type ConfigProblem } from '../runtime/errors.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { type Captures, compilePattern, matchPattern, type QueryPattern } from './query-pattern.ts';
import { compileTemplate, type FilledTemplate, type JsonValue } from './set-template.ts';

/** The shapes of the policy's input (docs/policy-input.md). */
export type InputShape = 'envoy' | 'agentvault' | 'agentweave';

/** One entry of `ext_authz.queries`. A match without keys fits every request. */
export type QuerySpec = Readonly<{
  match?:
    | Readonly<{
        peer?: string | undefined;
        method?: readonly string[] | undefined;
        path?: string | undefined;
        host?: string | undefined;
        /** Context extensions of the route, each equal to the value here. */
        context?: Readonly<Record<string, string>> | undefined;
      }>
    | undefined;
  /** OPA decision path; absent, the default one. */
  path?: string | undefined;
  input?: InputShape | undefined;
  dryRun?: boolean | undefined;
  set?: Readonly<Record<string, JsonValue>> | undefined;
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

export type SelectedQuery = Readonly<{
  kind: 'query';
  /** OPA decision path without leading slash, e.g. `envoy/authz/allow`. */
  path: string;
  input: InputShape;
  /** Denials and failures of this query are logged and let through. */
  dryRun: boolean;
  /** Constants of the query with captures filled in. */
  set: Readonly<Record<string, JsonValue>>;
  captures: Captures;
  /** Place in the configured list; undefined for the default path. */
  index: number | undefined;
}>;

type QueryRefusal = Readonly<{
  kind: 'deny';
  reason: 'unsafe_path' | 'no_query' | 'malformed_request';
  message: string;
}>;

export type QueryDefaults = Readonly<{ defaultPath: string; defaultInput: InputShape }>;

export interface QueryMap {
  /** The first query that fits; never throws. */
  select(request: QueryRequest): SelectedQuery | QueryRefusal;
  /** Every decision path a Check can lead to, once each, the default first. */
  readonly paths: readonly string[];
}

type CompiledQuery = Readonly<{
  index: number;
  path: string;
  input: InputShape;
  dryRun: boolean;
  fill: FilledTemplate;
  peer: QueryPattern | undefined;
  methods: ReadonlySet<string> | undefined;
  requestPath: QueryPattern | undefined;
  host: QueryPattern | undefined;
  context: readonly (readonly [string, string])[];
}>;

/**
 * Compiles the query list. `defaultPath` decides what no query matches; empty, such a request is denied `no_query`.
 * Throws a ConfigError with every problem, its paths starting at `ext_authz`.
 */
export function compileQueries(specs: readonly QuerySpec[], defaults: QueryDefaults): QueryMap {
  const problems: ConfigProblem[] = [];
  const report = (path: string) => (message: string) => {
    problems.push({ path, message });
  };
  const queries = specs.map((spec, index) => compileQuery(spec, index, defaults, report));
  const defaultPath =
    defaults.defaultPath === '' ? undefined : decisionPath(defaults.defaultPath, report('ext_authz.path'));
  if (problems.length > 0) throw new ConfigError(problems);

  const anyPathRule = queries.some((query) => query.requestPath !== undefined);
  const fallback = fallbackFor(defaultPath, defaults.defaultInput);
  return Object.freeze({
    paths: Object.freeze([
      ...new Set([...(defaultPath === undefined ? [] : [defaultPath]), ...queries.map((q) => q.path)]),
    ]),
    select(request: QueryRequest) {
      const path = request.path === undefined || request.path === '' ? undefined : withoutQuery(request.path);
      if (anyPathRule && path !== undefined && isUnsafe(path)) return unsafePath;
      const host = hostOf(request.host);
      for (const query of queries) {
        const captures = matchQuery(query, request, path, host);
        if (captures !== undefined) return selected(query, captures);
      }
      return fallback;
    },
  });
}

const unsafePath: QueryRefusal = Object.freeze({
  kind: 'deny',
  reason: 'unsafe_path',
  message: 'path has dot segments, double slashes, backslashes or an encoded dot, slash or backslash',
});

function fallbackFor(path: string | undefined, input: InputShape): SelectedQuery | QueryRefusal {
  if (path === undefined) {
    return Object.freeze({ kind: 'deny', reason: 'no_query', message: 'no query matches the request' });
  }
  const empty = Object.freeze({});
  return Object.freeze({
    kind: 'query',
    path,
    input,
    dryRun: false,
    set: empty,
    captures: empty,
    index: undefined,
  });
}

function selected(query: CompiledQuery, captures: Captures): SelectedQuery | QueryRefusal {
  const set = query.fill(captures);
  if (set === undefined) {
    return Object.freeze({
      kind: 'deny',
      reason: 'malformed_request',
      message: 'a part of the request that belongs into a SPIFFE ID is not a valid path segment',
    });
  }
  return Object.freeze({
    kind: 'query',
    path: query.path,
    input: query.input,
    dryRun: query.dryRun,
    set: Object.freeze(set) as Readonly<Record<string, JsonValue>>,
    captures,
    index: query.index,
  });
}

function matchQuery(
  query: CompiledQuery,
  request: QueryRequest,
  path: string | undefined,
  host: string | undefined,
): Captures | undefined {
  if (query.methods !== undefined && !query.methods.has(request.method ?? '')) return undefined;
  const peer = matchKey(query.peer, request.peerId);
  if (peer === undefined) return undefined;
  const inPath = matchKey(query.requestPath, path);
  if (inPath === undefined || matchKey(query.host, host) === undefined) return undefined;
  const extensions = request.contextExtensions ?? noCaptures;
  for (const [key, value] of query.context) {
    if (!Object.hasOwn(extensions, key) || extensions[key] !== value) return undefined;
  }
  return query.peer === undefined ? inPath : Object.freeze({ ...peer, ...inPath });
}

const noCaptures: Captures = Object.freeze({});

function matchKey(pattern: QueryPattern | undefined, text: string | undefined): Captures | undefined {
  if (pattern === undefined) return noCaptures;
  return text === undefined || text === '' ? undefined : matchPattern(pattern, text);
}

function withoutQuery(path: string): string {
  const question = path.indexOf('?');
  return question === -1 ? path : path.slice(0, question);
}

/** Paths on which an upstream and a policy may disagree about where they lead. */
function isUnsafe(path: string): boolean {
  return /\/\/|\\|%2e|%2f|%5c|(?:^|\/)\.\.?(?:\/|$)/i.test(path);
}

/** Lower case, without the port; the brackets of an IPv6 address stay. */
function hostOf(host: string | undefined): string | undefined {
  if (host === undefined || host === '') return undefined;
  const end = host.startsWith('[') ? host.indexOf(']') + 1 : host.lastIndexOf(':');
  return (end > 0 ? host.slice(0, end) : host).toLowerCase();
}

type Report = (path: string) => (message: string) => void;

function compileQuery(
  spec: QuerySpec,
  index: number,
  defaults: QueryDefaults,
  report: Report,
): CompiledQuery {
  const at = `ext_authz.queries[${index}]`;
  const match = spec.match ?? {};
  const peer = pattern(match.peer, true, report(`${at}.match.peer`));
  checkPeer(match.peer, report(`${at}.match.peer`));
  const requestPath = pattern(match.path, true, report(`${at}.match.path`));
  if (match.path !== undefined && !/^[/*]/.test(match.path))
    report(`${at}.match.path`)('does not start with / or *');
  if (match.path?.includes('?'))
    report(`${at}.match.path`)('is matched without the query string, so ? never fits');
  if (match.path !== undefined && isUnsafe(match.path)) report(`${at}.match.path`)(unsafePath.message);
  if (match.method?.length === 0) report(`${at}.match.method`)('lists no method');
  match.method?.forEach((method, i) => {
    if (!/^[A-Z][A-Z0-9_-]*$/.test(method))
      report(`${at}.match.method[${i}]`)('is not an HTTP method in upper case');
  });
  if (match.host !== undefined && (/[A-Z/]/.test(match.host) || /:\d*$/.test(match.host))) {
    report(`${at}.match.host`)('is matched in lower case without the port');
  }
  const names = new Set([...(peer?.names ?? []), ...(requestPath?.names ?? [])]);
  for (const name of peer?.names ?? []) {
    if (requestPath?.names.includes(name)) report(`${at}.match.path`)(`:${name} is captured by peer already`);
  }
  const set = spec.set ?? {};
  checkSet(set, `${at}.set`, report);
  return Object.freeze({
    index,
    path: decisionPath(spec.path ?? defaults.defaultPath, report(`${at}.path`)),
    input: spec.input ?? defaults.defaultInput,
    dryRun: spec.dryRun ?? false,
    fill: compileTemplate(set, names, (path, message) => report(`${at}.set${path}`)(message)),
    peer,
    methods: match.method === undefined ? undefined : new Set(match.method),
    requestPath,
    host: pattern(match.host, false, report(`${at}.match.host`)),
    context: Object.entries(match.context ?? {}),
  });
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

/** Who the peer is comes from its certificate, never from configuration. */
function checkSet(set: Readonly<Record<string, JsonValue>>, at: string, report: Report): void {
  if (Object.hasOwn(set, 'spiffe')) report(`${at}.spiffe`)('is written by the sidecar only');
  const subject = set['subject'];
  if (subject === undefined) return;
  if (typeof subject !== 'object' || subject === null || Array.isArray(subject)) {
    report(`${at}.subject`)('is not an object');
  } else if (Object.hasOwn(subject, 'id')) {
    report(`${at}.subject.id`)('is the SPIFFE ID of the peer and cannot be set');
  }
}

function decisionPath(text: string, report: (message: string) => void): string {
  const segments = text.split('/').filter((segment) => segment !== '');
  if (segments.length === 0) report('is no decision path such as envoy/authz/allow');
  if (segments.some((segment) => segment === '.' || segment === '..')) report('has dot segments');
  return segments.join('/');
}
