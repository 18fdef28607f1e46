import { randomUUID } from 'node:crypto';
import { createConfiguredChecker } from '../app/checker.ts';
import type { Clock } from '../app/clock.ts';
import { identityRulesOf, readDenied } from '../app/identity-rules.ts';
import type { MintToken } from '../app/jwt-authorization.ts';
import { createConfiguredEngine } from '../app/policy-engine.ts';
import type { Config } from '../config/config.ts';
import type { CheckTrace } from '../extauthz/check-trace.ts';
import { problemOf, reasonCodeOf, reasonOf } from '../extauthz/outcome.ts';
import { createResponseEncoder } from '../extauthz/response-encoder.ts';
import { AppError, ConfigError, messageOf } from '../runtime/errors.ts';
import { createLatest } from '../runtime/latest.ts';
import { silentLogger } from '../runtime/log.ts';
import type { BundleDocument } from '../spiffe/bundle-document.ts';
import { emptySnapshot, type TrustSnapshot } from '../trust/snapshot.ts';
import { loadBundles, silentPolicyMeter } from './check-bundles.ts';
import { parseCheckJson } from './check-json.ts';
import { type ConfigFlags, readConfig, readText } from './config-file.ts';
import { firstIdentity } from './first-identity.ts';
import { type CliOptions, type ExitCode, printJson, printLine } from './io.ts';
import { responseToJson } from './response-json.ts';
import { federationAttempts } from './try-federation.ts';

export type ExplainFlags = ConfigFlags &
  Readonly<{
    config: string;
    check: string;
    /** Judge without an identity source: no bundle is held, so no certificate can be verified. */
    withoutIdentity: boolean;
    timeoutMs: number;
  }>;

/**
 * `explain`: judges one CheckRequest with the checker that `run` uses, and prints what each step came to. The exit code
 * says whether it could be explained, not what was decided.
 */
export async function explain(io: CliOptions, clock: Clock, flags: ExplainFlags): Promise<ExitCode> {
  const { config } = await readConfig(flags.config, flags, io.env);
  if (!config.extAuthz.enabled) {
    throw new ConfigError([{ path: 'ext_authz.enabled', message: 'is false, so no Check is ever answered' }]);
  }
  const { message, ignored } = await readCheck(flags.check);
  for (const path of ignored)
    printLine(io.stderr, `warning: ${path} is no field of a CheckRequest and is ignored`);
  const log = silentLogger;
  const rules = identityRulesOf(config, (await readDenied(config)).patterns);
  const snapshots = createLatest(await snapshotFor(io, clock, config, flags));
  const configured = createConfiguredEngine(config, {
    snapshots,
    once: { timeoutMs: flags.timeoutMs },
    clock,
    log,
    meter: silentPolicyMeter,
  });
  try {
    if (configured.kind === 'wasm') await loadBundles(configured.engine, config, io.signal);
    const { engine } = configured;
    const checker = createConfiguredChecker(config, {
      snapshots,
      engine,
      clock,
      identityRules: () => rules,
      mint: nameToken,
      meter: silentMeter,
      newDecisionId: randomUUID,
      log,
    });
    printJson(io.stdout, describe(config, await checker.check(message, io.signal)));
    return 0;
  } finally {
    if (configured.kind === 'wasm') configured.engine.close();
  }
}

const silentMeter = Object.freeze({ keysFetched() {}, cache: { looked() {} } });

/** What is printed may be kept or sent around, so no token is fetched for it: its place is shown. */
const nameToken: MintToken = ({ audience, spiffeId }) =>
  Promise.resolve(`[JWT-SVID of ${spiffeId} for ${audience}]`);

async function readCheck(path: string): Promise<ReturnType<typeof parseCheckJson>> {
  const text = await readText(path);
  try {
    return parseCheckJson(text);
  } catch (error) {
    throw new ConfigError([{ path, message: messageOf(error) }]);
  }
}

async function snapshotFor(
  io: CliOptions,
  clock: Clock,
  config: Config,
  { withoutIdentity, timeoutMs }: ExplainFlags,
): Promise<TrustSnapshot> {
  if (withoutIdentity) {
    const trustDomain = config.trustDomain ?? config.identity.dev?.trustDomain;
    if (trustDomain === undefined) {
      throw new ConfigError([
        { path: 'trust_domain', message: 'is needed without an identity: give it with --trust-domain' },
      ]);
    }
    return Object.freeze({ ...emptySnapshot, version: 1, trustDomain });
  }
  let snapshot: TrustSnapshot;
  try {
    snapshot = await firstIdentity(config, clock, timeoutMs, io.signal);
  } catch (error) {
    if (io.signal.aborted) throw error;
    const remedy = 'with --without-identity the Check is judged with no bundles held';
    throw new AppError('unavailable', `${messageOf(error)}; ${remedy}`, { cause: error });
  }
  return withPartners(io, clock, config, snapshot);
}

/** Adds what the partners' bundle endpoints give; what the identity source says of a trust domain wins, as in `run`. */
async function withPartners(
  io: CliOptions,
  { now }: Clock,
  config: Config,
  snapshot: TrustSnapshot,
): Promise<TrustSnapshot> {
  const { bundles, jwtBundles } = snapshot;
  const fetched: BundleDocument[] = [];
  for (const { trustDomain, attempt } of await federationAttempts(config, {
    held: () => bundles,
    now,
    signal: io.signal,
  })) {
    try {
      fetched.push(await attempt());
    } catch (error) {
      printLine(io.stderr, `warning: no bundle of ${trustDomain}: ${messageOf(error)}`);
    }
  }
  return Object.freeze({
    ...snapshot,
    bundles: new Map([...fetched.map(({ x509 }) => [x509.trustDomain, x509] as const), ...bundles]),
    jwtBundles: new Map([...fetched.map(({ jwt }) => [jwt.trustDomain, jwt] as const), ...jwtBundles]),
  });
}

function describe({ extAuthz }: Config, trace: CheckTrace): object {
  const { peer, query, input, evaluation, decisionId } = trace;
  const { headerMode, onFailure } = extAuthz;
  const { outcome, bytes } = createResponseEncoder({ headerMode, onFailure })(trace.outcome, decisionId);
  return {
    peer: describePeer(peer),
    query:
      query === undefined
        ? null
        : {
            matched: query.index === undefined ? 'none: the default' : `ext_authz.queries[${query.index}]`,
            path: query.path,
            input: query.input,
            dry_run: query.dryRun,
            captures: query.captures,
          },
    input: input ?? null,
    evaluation: evaluation ?? null,
    decision: {
      outcome: outcome.kind,
      reason_code: reasonCodeOf(outcome) ?? null,
      reason: reasonOf(outcome) ?? null,
      problem: problemOf(outcome) ?? null,
      decision_id: decisionId,
    },
    response: responseToJson(bytes),
  };
}

function describePeer(peer: CheckTrace['peer']): object | null {
  if (peer === undefined) return null;
  if (peer.id === undefined) return { id: null, via: peer.via };
  return { id: peer.id, trust_domain: peer.trustDomain, via: peer.via, verified: peer.verified };
}
