import { createHash } from 'node:crypto';
import type { Evaluation } from '../policy/policy-engine.ts';
import type { SelectedQuery } from '../policy/query-map.ts';
import type { CheckHttp, CheckRequest } from './check-attributes.ts';
import { createLruCache } from './lru.ts';
import type { Peer } from './peer/peer.ts';

/** What decisions are made under; a change of any part drops all that are held. */
export type DecisionVersions = Readonly<{
  /** Empty when the engine cannot tell; then nothing is kept. */
  engine: string;
  trust: number;
  /** The identity rules in force, by identity. */
  rules: object;
}>;

export interface DecisionCacheMeter {
  looked(outcome: 'hit' | 'miss'): void;
}

/** Results of the policy for queries that say what theirs depend on. */
export interface DecisionCache {
  /** The place of a Check's decision; undefined when its query has no cache key or the engine no version. */
  keyOf(
    query: SelectedQuery,
    request: CheckRequest,
    peer: Peer,
    versions: DecisionVersions,
  ): string | undefined;
  find(key: string, versions: DecisionVersions): Evaluation | undefined;
  /** Keeps a result until its time to live is over or what proves the peer ends; anything but a result is not kept. */
  keep(
    key: string,
    evaluation: Evaluation,
    versions: DecisionVersions,
    provenUntil: number | undefined,
  ): void;
}

export type DecisionCacheOptions = Readonly<{
  ttlMs: number;
  maxEntries: number;
  /** Milliseconds since the epoch. */
  now: () => number;
  meter: DecisionCacheMeter;
}>;

type Entry = Readonly<{ evaluation: Evaluation; until: number }>;

export function createDecisionCache({ ttlMs, maxEntries, now, meter }: DecisionCacheOptions): DecisionCache {
  const entries = createLruCache<string, Entry>(maxEntries);
  let held: DecisionVersions | undefined;

  function isCurrent(versions: DecisionVersions): boolean {
    return held?.engine === versions.engine && held.trust === versions.trust && held.rules === versions.rules;
  }

  return Object.freeze({
    keyOf(query: SelectedQuery, request: CheckRequest, peer: Peer, { engine, trust }: DecisionVersions) {
      if (query.cacheKey.length === 0 || engine === '') return undefined;
      const parts = query.cacheKey.map((part) => partOf(part, request, peer));
      const text = JSON.stringify([query.index, query.path, query.input, query.set, engine, trust, parts]);
      // Paths and bodies are as long as a client likes; a digest is not.
      return createHash('sha256').update(text).digest('base64');
    },
    find(key: string, versions: DecisionVersions) {
      const entry = isCurrent(versions) ? entries.get(key) : undefined;
      const fresh = entry !== undefined && now() < entry.until ? entry.evaluation : undefined;
      meter.looked(fresh === undefined ? 'miss' : 'hit');
      return fresh;
    },
    keep(key: string, evaluation: Evaluation, versions: DecisionVersions, provenUntil: number | undefined) {
      if (evaluation.kind !== 'result') return;
      if (!isCurrent(versions)) {
        entries.clear();
        held = versions;
      }
      entries.set(key, {
        evaluation,
        until: Math.min(now() + ttlMs, provenUntil ?? Number.POSITIVE_INFINITY),
      });
    },
  } satisfies DecisionCache);
}

/** What one part of a cache key says of a Check; null stands for what is not there, which no text equals. */
function partOf(part: string, { attributes, headers }: CheckRequest, peer: Peer): unknown {
  const http = attributes?.request?.http;
  if (part === 'peer') return [peer.id ?? null, peer.via, peer.verified];
  if (part === 'method') return http?.method ?? null;
  if (part === 'path') return http?.path ?? null;
  if (part === 'host') return http?.host ?? null;
  if (part === 'body') {
    const about = [
      'content-type',
      'content-length',
      'content-encoding',
      'grpc-encoding',
      'x-envoy-auth-partial-body',
    ];
    return [
      http?.body ?? null,
      http?.rawBody?.toString('base64') ?? null,
      about.map((name) => headers[name] ?? null),
    ];
  }
  const name = part.slice(part.indexOf('.') + 1);
  if (part.startsWith('context.')) return attributes?.contextExtensions?.[name] ?? null;
  return [headers[name.toLowerCase()] ?? null, rawValues(http, name.toLowerCase())];
}

/** With encode_raw_headers a policy sees bytes and repetitions, which may come to the same text. */
function rawValues(http: CheckHttp | undefined, name: string): unknown {
  return http?.headerMap?.headers
    ?.filter(({ key = '' }) => key.toLowerCase() === name)
    .map(({ value, rawValue }) => [value ?? null, rawValue?.toString('base64') ?? null]);
}
