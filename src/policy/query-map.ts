import { ConfigError, type ConfigProblem } from '../runtime/errors.ts';
import type { JsonValue } from '../runtime/json-value.ts';
import type { Captures } from './query-pattern.ts';
import {
  captureNames,
  compileMatch,
  isUnsafePath,
  type MatchSpec,
  matchRequest,
  matchSubject,
  type QueryRequest,
  type Report,
  type RequestMatch,
  unsafePathMessage,
} from './request-match.ts';
import { compileTemplate, type FilledTemplate } from './set-template.ts';

/** The shapes of the policy's input (docs/policy-input.md). */
export type InputShape = 'envoy' | 'agentvault' | 'agentweave';

/** One entry of `ext_authz.queries`. A match without keys fits every request. */
export type QuerySpec = Readonly<{
  match?: MatchSpec | undefined;
  /** OPA decision path; absent, the default one. */
  path?: string | undefined;
  input?: InputShape | undefined;
  dryRun?: boolean | undefined;
  /** What the decision depends on: peer, method, path, host, body, context.K, header.N. Absent: it is never kept. */
  cacheKey?: readonly string[] | undefined;
  set?: Readonly<Record<string, JsonValue>> | undefined;
}>;

export type SelectedQuery = Readonly<{
  kind: 'query';
  /** OPA decision path without leading slash, e.g. `envoy/authz/allow`. */
  path: string;
  input: InputShape;
  /** Denials and failures of this query are logged and let through. */
  dryRun: boolean;
  /** What the decision depends on; empty: it is never kept. */
  cacheKey: readonly string[];
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
  cacheKey: readonly string[];
  fill: FilledTemplate;
  match: RequestMatch;
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

  const anyPathRule = queries.some((query) => query.match.path !== undefined);
  const fallback = fallbackFor(defaultPath, defaults.defaultInput);
  return Object.freeze({
    paths: Object.freeze([
      ...new Set([...(defaultPath === undefined ? [] : [defaultPath]), ...queries.map((q) => q.path)]),
    ]),
    select(request: QueryRequest) {
      const subject = matchSubject(request);
      if (anyPathRule && subject.path !== undefined && isUnsafePath(subject.path)) return unsafePath;
      for (const query of queries) {
        const captures = matchRequest(query.match, subject);
        if (captures !== undefined) return selected(query, captures);
      }
      return fallback;
    },
  });
}

const unsafePath: QueryRefusal = Object.freeze({
  kind: 'deny',
  reason: 'unsafe_path',
  message: unsafePathMessage,
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
    cacheKey: Object.freeze([]),
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
    cacheKey: query.cacheKey,
    set: Object.freeze(set) as Readonly<Record<string, JsonValue>>,
    captures,
    index: query.index,
  });
}

function compileQuery(
  spec: QuerySpec,
  index: number,
  defaults: QueryDefaults,
  report: Report,
): CompiledQuery {
  const at = `ext_authz.queries[${index}]`;
  const match = compileMatch(spec.match ?? {}, `${at}.match`, report);
  const set = spec.set ?? {};
  checkSet(set, `${at}.set`, report);
  return Object.freeze({
    index,
    path: decisionPath(spec.path ?? defaults.defaultPath, report(`${at}.path`)),
    input: spec.input ?? defaults.defaultInput,
    dryRun: spec.dryRun ?? false,
    cacheKey: Object.freeze([...(spec.cacheKey ?? [])]),
    fill: compileTemplate(set, captureNames(match), (path, message) => report(`${at}.set${path}`)(message)),
    match,
  });
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
  // A reference of Rego is one segment here, which no policy has: it would be undefined, and so a denial, for ever.
  if (segments.length === 1 && /^data[.[]/.test(text))
    report('is a path with slashes and without data, such as envoy/authz/allow');
  return segments.join('/');
}
