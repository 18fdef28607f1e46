import type { Writable } from 'node:stream';
import { readinessOf } from '../admin/readiness.ts';
import { type AdminListener, createAdminServer } from '../admin/server.ts';
import { buildStatus } from '../admin/status.ts';
import type { LoadedConfig } from '../config/load.ts';
import type { Kill } from '../outputs/reload-signal.ts';
import { aborted } from '../runtime/abort.ts';
import { runTasks, type Task } from '../runtime/tasks.ts';
import { createSdsService } from '../sds/service.ts';
import { createLogger } from '../telemetry/logger.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import { createTrustStore } from '../trust/store.ts';
import { createAuthorization } from './authorization.ts';
import { createAuthzDoor } from './authz-door.ts';
import { systemClock } from './clock.ts';
import { createFederation } from './federation.ts';
import { createConfiguredSource, createFeed } from './identity.ts';
import { createIdentityRules } from './identity-rules.ts';
import { createOutputs } from './outputs.ts';
import { type ConfigSource, createReload } from './reload.ts';
import { createServers } from './servers.ts';
import { createSpiffeApi } from './spiffe-api.ts';
import { createTokens } from './tokens.ts';

export type AppOptions = Readonly<{
  loaded: LoadedConfig;
  /** Where the configuration may be read again. */
  configSource: ConfigSource;
  /** Decision records go to `stdout`, everything else to `stderr`; one JSON object a line. */
  stdout: Writable;
  stderr: Writable;
  version: string;
  nodeVersion: string;
  /** Signals another process, for programs that reload their files. */
  kill: Kill;
}>;

/** How long calls in progress have to finish once the program is told to stop. */
const drainMs = 5_000;
/** How long the collector has for the last spans. */
const spanFlushMs = 2_000;
/** How often the health service is told whether the program is ready: expiry comes without an event. */
const readinessPollMs = 250;

/**
 * The sidecar, from its configuration to its end: builds every room, joins them, and runs until `signal` fires; then it
 * drains. Rejects with the reason when a part that it cannot do without fails, such as a socket that is taken.
 */
export async function runApp(options: AppOptions, signal: AbortSignal): Promise<void> {
  const { loaded, configSource, stdout, stderr, version, nodeVersion } = options;
  const { config } = loaded;
  const clock = systemClock;
  const { now, sleep } = clock;
  const startedAt = now();
  const log = createLogger({ level: config.log.level, destination: stderr });
  for (const warning of loaded.warnings) log.warn({ warning }, 'configuration warning');
  const metrics = createMetrics({ version, nodeVersion });

  const reload = createReload({
    initial: loaded,
    source: configSource,
    sleep,
    log,
    meter: metrics.config,
  });
  const identityRules = await createIdentityRules({
    configs: reload.configs,
    now,
    sleep,
    log,
    meter: metrics.config,
  });

  const store = createTrustStore({
    expectedTrustDomain: config.trustDomain,
    now,
    log,
    meter: metrics.trust,
  });
  const { source, tasks: sourceTasks } = await createConfiguredSource(config, {
    ...clock,
    log,
    meter: metrics.workload,
  });
  const { onPermissionDenied } = config.identity.workloadApi;
  const tokens = createTokens(config, { source, snapshots: store, clock, log, meter: metrics.tokens });
  const federation = await createFederation({
    configs: reload.configs,
    source,
    store,
    clock,
    log,
    meter: metrics.federation,
  });
  const spiffeApi = createSpiffeApi(config, {
    snapshots: store,
    sourceName: source.name,
    bundleInfo: federation.bundleInfo,
    tokens: tokens.cache,
    now,
    sleep,
    meter: metrics.identity,
  });
  const outputs = createOutputs(config, {
    snapshots: store,
    tokens: tokens.cache,
    kill: options.kill,
    clock,
    log,
    meterOf: metrics.outputs,
  });
  const onProblem = spiffeApi.sourceProblem;
  const feed = createFeed({ source, store, onPermissionDenied, now, log, onProblem });
  const sds = config.sds.enabled
    ? createSdsService({
        snapshots: store,
        jwtSvids: tokens.served,
        options: config.sds,
        log,
        meter: metrics.sds,
        now,
      })
    : undefined;
  // Its packages are many: they are loaded only where they are asked for.
  const tracing =
    config.tracing &&
    (await import('../telemetry/tracing.ts')).createTracing({
      ...config.tracing,
      version,
      sleep,
      log,
      meter: metrics.tracing,
    });
  const { promise: drained, resolve: drainedDone } = Promise.withResolvers<void>();
  const authorization = config.extAuthz.enabled
    ? createAuthorization(config, {
        snapshots: store,
        identityRules: () => identityRules.rules(),
        tokens: tokens.cache,
        clock,
        log,
        metrics,
        stdout,
        tracing,
        drained,
        version,
      })
    : undefined;
  const mtls = createAuthzDoor(config, { snapshots: store, now, log });
  const servers = createServers(config, {
    mtls: mtls?.door,
    sds: sds?.service,
    extAuthz: authorization?.service,
    source,
    now,
    log,
  });

  let listening: string | undefined = 'sockets are not bound yet';
  const policyProblem = (): string | undefined => {
    const policy = authorization?.state();
    return policy === undefined || policy.ready ? undefined : (policy.problem ?? 'no policy is loaded');
  };
  const readiness = () =>
    readinessOf({ identity: feed.unready(), policy: policyProblem(), listeners: listening });
  const admin = createAdminServer({
    readiness,
    status: () =>
      buildStatus({
        version,
        startedAt,
        now: now(),
        readiness: readiness(),
        snapshot: store.current(),
        identity: { source: source.name, problem: feed.problem() },
        envoys: sds?.clients() ?? [],
        policy: authorization?.state(),
        decisions: authorization?.decisions() ?? [],
        outputs: outputs.states(),
      }),
    metrics: metrics.render,
    routes: spiffeApi.routes,
    log,
  });

  const serveAdmin: Task = async (linked) => {
    const { listen, probeListen } = config.admin;
    const open: AdminListener[] = [];
    try {
      open.push(await admin.listen(listen, 'all'));
      if (probeListen !== undefined) open.push(await admin.listen(probeListen, 'probes'));
      await aborted(linked);
      // Probes tell "not ready" while calls drain.
      await drained;
    } finally {
      await Promise.all(open.map((listener) => listener.close()));
    }
  };
  const serveGrpc: Task = async (linked) => {
    try {
      await servers.listen();
      listening = undefined;
      await aborted(linked);
    } finally {
      listening = 'the program is stopping';
      servers.setServing(false);
      await servers.shutdown(drainMs);
      drainedDone();
    }
  };
  const tellHealth: Task = async (linked) => {
    while (!linked.aborted) {
      servers.setServing(readiness().ready);
      await sleep(readinessPollMs, linked);
    }
  };
  const tellExpiry: Task = async (linked) => {
    for await (const snapshot of store.changes(linked)) metrics.identity.held(heldIdentity(snapshot));
  };

  const sendSpans: readonly Task[] = tracing ? [(linked) => tracing.run(linked, drained, spanFlushMs)] : [];

  log.info({ version, source: source.name, engine: config.policy.engine }, 'svidecar starts');
  await runTasks(signal, [
    serveAdmin,
    ...reload.tasks,
    ...identityRules.tasks,
    ...sourceTasks,
    ...feed.tasks,
    ...federation.tasks,
    ...tokens.tasks,
    ...spiffeApi.tasks,
    ...outputs.tasks,
    ...(authorization?.tasks ?? []),
    ...(mtls?.tasks ?? []),
    tellExpiry,
    serveGrpc,
    tellHealth,
    ...sendSpans,
  ]);
  log.info({}, 'svidecar has stopped');
}

function heldIdentity({ svids, bundles, jwtBundles }: TrustSnapshot) {
  return {
    svids: svids.map(({ spiffeId, chain: [leaf] }) => ({
      spiffeId,
      fingerprint: leaf.fingerprint,
      expiresAt: leaf.notAfter,
    })),
    bundles: [...bundles.values()].map(({ trustDomain, authorities }) => ({
      trustDomain,
      x509Authorities: authorities.length,
      jwtAuthorities: jwtBundles.get(trustDomain)?.authorities.length ?? 0,
      expiresAt:
        authorities.length === 0 ? undefined : Math.max(...authorities.map(({ notAfter }) => notAfter)),
    })),
  };
}
