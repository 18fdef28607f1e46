import { randomUUID } from 'node:crypto';
import type { Writable } from 'node:stream';
import { createRecentDecisions, type RecentDecision } from '../admin/recent-decisions.ts';
import type { PolicyState } from '../admin/status.ts';
import type { Config } from '../config/config.ts';
import type { CheckTrace } from '../extauthz/check-trace.ts';
import type { IdentityRules } from '../extauthz/identity-rules.ts';
import { reasonCodeOf } from '../extauthz/outcome.ts';
import { createExtAuthzService, resultOf } from '../extauthz/service.ts';
import { createShadow } from '../extauthz/shadow.ts';
import type { Service } from '../grpc/service.ts';
import { compileRequestRules } from '../policy/request-rules.ts';
import { aborted } from '../runtime/abort.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import { createCheckSpans } from './check-spans.ts';
import { createConfiguredChecker } from './checker.ts';
import type { Clock } from './clock.ts';
import { createDecisionRecords } from './decision-records.ts';
import { shadowAt } from './jwt-authorization.ts';
import { createConfiguredEngine } from './policy-engine.ts';

/** The ext_authz half of the program. */
export type Authorization = Readonly<{
  service: Service;
  tasks: readonly Task[];
  state(): PolicyState;
  decisions(): readonly RecentDecision[];
}>;

export function createAuthorization(
  config: Config,
  deps: {
    snapshots: SnapshotReader;
    identityRules: () => IdentityRules;
    tokens: JwtSvidCache;
    clock: Clock;
    log: Logger;
    metrics: Metrics;
    stdout: Writable;
    /** Absent: no Check has a span. */
    tracing?: Tracing | undefined;
    /** Fulfilled when no Check is in progress any more and none will come. */
    drained: Promise<void>;
    version: string;
  },
): Authorization {
  const { snapshots, clock, log, metrics, stdout } = deps;
  const { extAuthz } = config;
  const configured = createConfiguredEngine(config, {
    snapshots,
    clock,
    log,
    meter: metrics.policy,
  });
  const { engine } = configured;
  const recent = createRecentDecisions();
  const records = createDecisionRecords(config, {
    configured,
    stdout,
    drained: deps.drained,
    clock,
    log,
    meter: metrics.decisionLog,
    version: deps.version,
  });
  const { tracing } = deps;
  const spans =
    tracing &&
    createCheckSpans({
      sample: config.tracing?.sample ?? 0,
      random: clock.random,
      engine: engine.name,
      record: (span) => tracing.record(span),
    });
  const shadow =
    extAuthz.shadow.length === 0
      ? undefined
      : createShadow({
          rules: compileRequestRules(extAuthz.shadow, shadowAt),
          engine,
          timeoutMs: config.policy.timeoutMs,
          // A shadow without end must leave a wasm worker to Checks.
          maxConcurrent: configured.kind === 'wasm' ? 1 : 16,
          log,
          meter: metrics.extAuthz,
        });
  const service = createExtAuthzService({
    checker: createConfiguredChecker(config, {
      snapshots,
      engine,
      clock,
      identityRules: deps.identityRules,
      mint: async (key, signal) => (await deps.tokens.get(key, signal)).token,
      meter: metrics.extAuthz,
      newDecisionId: randomUUID,
      log,
    }),
    response: { headerMode: extAuthz.headerMode, onFailure: extAuthz.onFailure },
    maxConcurrent: extAuthz.limits.maxConcurrent,
    timeoutMs: config.policy.timeoutMs,
    now: clock.now,
    monotonicNow: clock.monotonicNow,
    onDecision(trace) {
      recent.add(summarize(trace));
      records?.record(trace);
      spans?.(trace);
      void shadow?.observe(trace);
    },
    meter: metrics.extAuthz,
  });
  return {
    service,
    tasks: [
      async (signal) => {
        // The engine has a word in the last records, and in the Checks that are in progress at the end.
        const stop = new AbortController();
        const lastWord = async (): Promise<void> => {
          await (records === undefined ? aborted(signal).then(() => deps.drained) : records.run(signal));
          stop.abort();
        };
        await Promise.all([
          lastWord(),
          configured.kind === 'wasm' ? configured.engine.run(stop.signal) : configured.push?.run(stop.signal),
        ]);
      },
    ],
    state: () => ({
      engine: engine.name,
      ready: engine.ready(),
      bundles: configured.bundles(),
      problem: (configured.kind === 'wasm' ? configured.engine : configured.push)?.problem(),
    }),
    decisions: () => recent.list(),
  };
}

function summarize({ decisionId, startedAt, outcome, peer, request }: CheckTrace): RecentDecision {
  const http = request?.attributes?.request?.http;
  return {
    decisionId,
    at: startedAt,
    outcome: resultOf(outcome),
    reasonCode: reasonCodeOf(outcome),
    peer: peer?.id,
    request: http === undefined ? undefined : `${http.method ?? ''} ${http.path ?? ''}`,
  };
}
