import type { PolicyEngine } from '../policy/policy-engine.ts';
import type { QueryMap } from '../policy/query-map.ts';
import { withDeadline } from '../runtime/abort.ts';
import { AbortedError, AppError, messageOf, TimeoutError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { SnapshotReader, TrustSnapshot } from '../trust/snapshot.ts';
import type { BodyOptions } from './body/body.ts';
import type { CheckAttributes, CheckRequest } from './check-attributes.ts';
import { decodeCheckRequest } from './check-request.ts';
import { type CheckSteps, type CheckTrace, type Interval, noSteps } from './check-trace.ts';
import type { CredentialSpec } from './credential-spec.ts';
import type { Credentials } from './credentials.ts';
import type { DecisionCache } from './decision-cache.ts';
import { type IdentityRules, judgeHolder, judgePeer } from './identity-rules.ts';
import { buildPolicyInput } from './input/policy-input.ts';
import { lift, type Outcome, outcomeOf } from './outcome.ts';
import { type Peer, type PeerSource, resolvePeer, spiffeIdIn } from './peer/peer.ts';
import { namedByXfcc } from './peer/xfcc-peer.ts';
import { withEverySpelling } from './query-changes.ts';
import { queryRequestOf } from './query-request.ts';
import type { RateLimit } from './rate-limit.ts';
import { type Refusal, refuse, refuseForNow } from './reason.ts';

export type CheckerOptions = Readonly<{
  snapshots: SnapshotReader;
  engine: PolicyEngine;
  queries: QueryMap;
  /** Asked in order; the first that applies decides. */
  peerSources: readonly PeerSource[];
  /** x-forwarded-client-cert tells who holds the connection to the proxy before us. */
  trustXfcc?: boolean | undefined;
  /** The rules of this moment. */
  identityRules: () => IdentityRules;
  /** Absent: no decision is kept. */
  cache?: DecisionCache | undefined;
  /** Absent: an ID may make as many requests as it likes. */
  rateLimit?: RateLimit | undefined;
  body: BodyOptions;
  /** Absent: no request is given a JWT-SVID. */
  credentials?: Credentials | undefined;
  /** Bounds a whole Check, in milliseconds. */
  timeoutMs: number;
  /** Lift what policy and engine refuse: everywhere, or for the queries with these indexes. */
  dryRun: boolean;
  dryRunQueries?: ReadonlySet<number> | undefined;
  /** A new UUID. */
  newDecisionId: () => string;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Milliseconds of a clock that never goes back, with fractions. */
  monotonicNow: () => number;
  log: Logger;
}>;

export interface Checker {
  /**
   * Judges one decoded CheckRequest. Whatever it holds, the answer is a trace with an outcome; only a caller that goes
   * away makes it reject, with AbortedError. `deadline` is the caller's, in milliseconds since the epoch.
   */
  check(message: unknown, signal: AbortSignal, deadline?: number): Promise<CheckTrace>;
  /** The trace of a Check that is refused unseen, after it waited so many milliseconds. */
  refuseUnseen(refusal: Refusal, waitedMs?: number): CheckTrace;
}

type Steps = { -readonly [K in keyof CheckSteps]: CheckSteps[K] } & {
  exchange?: CredentialSpec | undefined;
  intervals: { -readonly [K in keyof Interval]: Interval[K] }[];
  /** When the Check began, by the clock that never goes back. */
  begun: number;
};

const noIdentityYet = refuse(
  'not_ready',
  'no identity is held: the identity source has given none yet, or has withdrawn it',
);
const noCredentials = refuse('token_unavailable', 'no JWT-SVID for the request within policy.timeout');
const noPolicyYet = refuse('not_ready', 'no policy is loaded yet');

/** Flow 2: request → peer → identity rules → rate limit → query → input → engine → outcome → credentials. */
export function createChecker(options: CheckerOptions): Checker {
  const { snapshots, engine, queries, body, now, monotonicNow, log } = options;

  async function run(message: unknown, steps: Steps, signal: AbortSignal): Promise<Outcome> {
    const snapshot = snapshots.current();
    if (snapshot.trustDomain === undefined) return refused(noIdentityYet);
    if (!engine.ready()) return refused(noPolicyYet);
    const request = decodeCheckRequest(message);
    steps.request = request;

    const resolved = await timed(steps, 'peer', () =>
      resolvePeer(options.peerSources, request, snapshot, signal),
    );
    if (resolved.kind === 'deny') return refused(resolved);
    const { peer } = resolved;
    steps.peer = peer;
    steps.exchange = resolved.exchange;
    const rules = options.identityRules();
    const { attributes } = request;
    const refusal =
      judgePeer(rules, peer, snapshot.trustDomain) ?? judgeHolder(rules, peer, holdersOf(request, peer));
    if (refusal !== undefined) return refused(refusal);
    const waitS = peer.id === undefined ? undefined : options.rateLimit?.take(peer.id);
    if (waitS !== undefined) {
      return refused(
        refuseForNow('rate_limited', `too many requests of ${peer.id}: see ext_authz.rate_limit`, waitS),
      );
    }

    const query = queries.select(queryRequestOf(request, peer.id));
    if (query.kind === 'deny') return refused(refuse(query.reason, query.message));
    steps.query = query;

    const destination = destinationOf(attributes, snapshot);
    const input = buildPolicyInput({ request, peer, destination, query, body });
    steps.input = input;
    // Looked up only now: what cannot be read is refused whatever is held.
    const versions = { engine: engine.revision(), trust: snapshot.version, rules };
    const key = options.cache?.keyOf(query, request, peer, versions);
    const held = key === undefined ? undefined : options.cache?.find(key, versions);
    if (held !== undefined) {
      steps.evaluation = held;
      return outcomeOf(held);
    }
    const started = monotonicNow();
    const evaluation = await timed(steps, 'engine', () => engine.evaluate(query.path, input, signal));
    steps.engineMs = monotonicNow() - started;
    steps.evaluation = evaluation;
    // One that was under way while the policy changed is of nobody knows which.
    if (key !== undefined && engine.revision() === versions.engine) {
      options.cache?.keep(key, evaluation, versions, resolved.provenUntil);
    }
    return outcomeOf(evaluation);
  }

  async function timed<T>(
    { intervals, begun }: Steps,
    step: Interval['step'],
    work: () => T | Promise<T>,
  ): Promise<T> {
    const interval: Steps['intervals'][number] = { step, fromMs: monotonicNow() - begun, toMs: undefined };
    intervals.push(interval);
    try {
      return await work();
    } finally {
      interval.toMs = monotonicNow() - begun;
    }
  }

  /** Who holds the connection, where another may be the peer: the one next to us, and the one whom its proxy tells of. */
  function holdersOf(request: CheckRequest, peer: Peer): readonly SpiffeId[] {
    const principal = spiffeIdIn(request.attributes?.source?.principal);
    const named = options.trustXfcc === true && peer.via === 'bridge' ? namedByXfcc(request) : [];
    return principal === undefined ? named : [principal, ...named];
  }

  async function settle(
    request: unknown,
    steps: Steps,
    signal: AbortSignal,
    budgetMs: number,
  ): Promise<Outcome> {
    try {
      return await withDeadline(Math.max(0, budgetMs), signal, (bounded) => run(request, steps, bounded));
    } catch (error) {
      if (error instanceof AbortedError && signal.aborted) throw error;
      if (error instanceof TimeoutError) {
        const message = `no decision within ${Math.max(0, Math.ceil(budgetMs))} ms`;
        // What our own rules have not passed yet is no failure of the engine's, which dry_run could lift.
        if (steps.peer === undefined) return refused(refuse('token_unavailable', message));
        return { kind: 'failed', reasonCode: 'engine_timeout', message };
      }
      if (error instanceof AppError) return refused(refuse('malformed_request', error.message));
      // A defect of ours that a request can provoke must not become an error, which Envoy may be set to let pass.
      log.error(
        { error: messageOf(error), stack: error instanceof Error ? error.stack : undefined },
        'check failed',
      );
      return refused(refuse('malformed_request', 'internal error while reading the request'));
    }
  }

  /** A request that goes on takes its credentials along, or does not go on. */
  async function equip(
    outcome: Outcome,
    steps: Steps,
    signal: AbortSignal,
    budgetMs: number,
  ): Promise<Outcome> {
    const { credentials } = options;
    const { request, peer, exchange } = steps;
    if (credentials === undefined || (outcome.kind !== 'allowed' && outcome.kind !== 'lifted'))
      return outcome;
    if (request === undefined || peer === undefined) return refused(noCredentials);
    const wanted = credentials.wanted(request, peer, exchange, snapshots.current());
    if ('kind' in wanted) return refused(wanted);
    if (wanted.length === 0) return outcome;
    try {
      // One that is held takes no time, so a Check whose time has run out can still get it.
      const issued = await timed(steps, 'credentials', () =>
        withDeadline(Math.max(0, budgetMs), signal, (bounded) => credentials.issue(wanted, bounded)),
      );
      return 'kind' in issued ? refused(issued) : { ...outcome, credentials: issued };
    } catch (error) {
      if (error instanceof TimeoutError) return refused(noCredentials);
      throw error;
    }
  }

  function isDryRun({ query }: CheckSteps): boolean {
    return (
      options.dryRun || (query?.index !== undefined && (options.dryRunQueries?.has(query.index) ?? false))
    );
  }

  return {
    async check(message, signal, deadline) {
      const startedAt = now();
      const started = monotonicNow();
      const steps: Steps = { ...noSteps, intervals: [], begun: started };
      const budgetMs =
        deadline === undefined ? options.timeoutMs : Math.min(options.timeoutMs, deadline - startedAt);
      const settled = await settle(message, steps, signal, budgetMs);
      const judged = isDryRun(steps) ? lift(settled) : settled;
      const outcome = await equip(
        spelledOut(judged, steps),
        steps,
        signal,
        budgetMs - (monotonicNow() - started),
      );
      return {
        // A copy: work that outlives its deadline still writes into `steps`.
        ...steps,
        decisionId: options.newDecisionId(),
        startedAt,
        durationMs: monotonicNow() - started,
        outcome,
      };
    },
    refuseUnseen(refusal, waitedMs = 0) {
      return {
        ...noSteps,
        decisionId: options.newDecisionId(),
        startedAt: now() - waitedMs,
        durationMs: waitedMs,
        outcome: refused(refusal),
      };
    },
  };
}

function spelledOut(outcome: Outcome, { request }: CheckSteps): Outcome {
  if (outcome.kind !== 'allowed') return outcome;
  const decision = withEverySpelling(outcome.decision, request?.attributes?.request?.http?.path ?? '');
  return decision === outcome.decision ? outcome : { ...outcome, decision };
}

function refused(refusal: Refusal): Outcome {
  return { kind: 'refused', refusal };
}

function destinationOf(attributes: CheckAttributes | undefined, snapshot: TrustSnapshot) {
  return spiffeIdIn(attributes?.destination?.principal) ?? snapshot.svids[0]?.spiffeId;
}
