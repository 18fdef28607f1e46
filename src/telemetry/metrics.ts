import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** What is held, for the gauges of expiry; times in milliseconds since the epoch. */
export type HeldIdentity = Readonly<{
  svids: readonly Readonly<{ spiffeId: string; fingerprint: string; expiresAt: number }>[];
  bundles: readonly Readonly<{
    trustDomain: string;
    x509Authorities: number;
    jwtAuthorities: number;
    /** When the last X.509 authority expires; undefined when there is none. */
    expiresAt: number | undefined;
  }>[];
}>;

/** Every meter of the program: each group fits the interface that its room declares. */
export type Metrics = ReturnType<typeof createMetrics>;

const prefix = 'svidecar_';
/** A Check takes parts of a millisecond with wasm, and up to policy.timeout when the engine is slow. */
const latencyBuckets = [
  0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5,
];
const answerBuckets = [0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30];

/**
 * Registers every metric, once, on a registry of its own: the one that prom-client shares by default would tie instances
 * together. Labels have closed sets of values, or our own SPIFFE IDs and the trust domains held, which are bounded;
 * nothing that a peer can choose is ever a label.
 */
export function createMetrics(info: { version: string; nodeVersion: string }) {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix });
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter<L>({ name: prefix + name, help, labelNames: [...labelNames], registers: [registry] });
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name: prefix + name, help, labelNames: [...labelNames], registers: [registry] });
  const histogram = <L extends string>(
    name: string,
    help: string,
    buckets: readonly number[],
    labelNames: readonly L[] = [],
  ) =>
    new Histogram<L>({
      name: prefix + name,
      help,
      labelNames: [...labelNames],
      buckets: [...buckets],
      registers: [registry],
    });

  gauge('build_info', 'Always 1; the version of the program and of Node.', ['version', 'node']).set(
    { version: info.version, node: info.nodeVersion },
    1,
  );

  return Object.freeze({
    identity: identityMetrics(counter, gauge),
    workload: workloadMetrics(counter, histogram),
    trust: trustMetrics(counter),
    federation: federationMetrics(counter, gauge),
    tokens: tokenMetrics(counter),
    sds: sdsMetrics(counter, gauge),
    extAuthz: extAuthzMetrics(counter, histogram),
    policy: policyMetrics(counter, gauge),
    outputs: outputMetrics(counter),
    decisionLog: decisionLogMetrics(counter),
    tracing: tracingMetrics(counter),
    config: configMetrics(counter, gauge),
    /** The answer to a scrape, in Prometheus' text format. */
    async render(): Promise<{ contentType: string; body: string }> {
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
    /** Every metric in the order of its registration, for the reference. */
    list: () => registry.getMetricsAsArray().map(describe),
  });
}

/** prom-client keeps these on every metric, but tells its types only of a part. */
function describe(metric: object) {
  const { name, help, labelNames, constructor } = metric as {
    name: string;
    help: string;
    labelNames: readonly string[];
    constructor: { name: string };
  };
  return Object.freeze({ name, help, type: constructor.name.toLowerCase(), labels: [...labelNames].sort() });
}

type NewCounter = <L extends string>(name: string, help: string, labels?: readonly L[]) => Counter<L>;
type NewGauge = <L extends string>(name: string, help: string, labels?: readonly L[]) => Gauge<L>;
type NewHistogram = <L extends string>(
  name: string,
  help: string,
  buckets: readonly number[],
  labels?: readonly L[],
) => Histogram<L>;

function identityMetrics(counter: NewCounter, gauge: NewGauge) {
  const issued = counter(
    'x509_svids_issued_total',
    'X.509-SVIDs that the identity source issued: the first for its ID, or one in place of another.',
    ['kind'],
  );
  const bundleUpdates = counter(
    'bundle_updates_total',
    'Bundles, X.509 or JWT, that came, changed or went.',
    ['trust_domain'],
  );
  let ids: ReadonlySet<string> = new Set();
  let certificates: ReadonlySet<string> = new Set();
  const svidExpiry = gauge(
    'svid_expiry_timestamp_seconds',
    'When the X.509-SVID held for this SPIFFE ID expires, in seconds since the epoch.',
    ['spiffe_id'],
  );
  const bundleExpiry = gauge(
    'bundle_expiry_timestamp_seconds',
    'When the last X.509 authority held for this trust domain expires, in seconds since the epoch.',
    ['trust_domain'],
  );
  const authorities = gauge('bundle_authorities', 'Authorities held for this trust domain.', [
    'trust_domain',
    'kind',
  ]);
  return Object.freeze({
    bundleUpdated: (trustDomain: string): void => bundleUpdates.inc({ trust_domain: trustDomain }),
    /** Tells what is held now; what was held before is forgotten. */
    held({ svids, bundles }: HeldIdentity): void {
      for (const { spiffeId, fingerprint } of svids) {
        if (!certificates.has(fingerprint)) issued.inc({ kind: ids.has(spiffeId) ? 'renewal' : 'first' });
      }
      ids = new Set(svids.map(({ spiffeId }) => spiffeId));
      certificates = new Set(svids.map(({ fingerprint }) => fingerprint));
      svidExpiry.reset();
      bundleExpiry.reset();
      authorities.reset();
      for (const { spiffeId, expiresAt } of svids) svidExpiry.set({ spiffe_id: spiffeId }, expiresAt / 1000);
      for (const { trustDomain, x509Authorities, jwtAuthorities, expiresAt } of bundles) {
        authorities.set({ trust_domain: trustDomain, kind: 'x509' }, x509Authorities);
        authorities.set({ trust_domain: trustDomain, kind: 'jwt' }, jwtAuthorities);
        if (expiresAt !== undefined) bundleExpiry.set({ trust_domain: trustDomain }, expiresAt / 1000);
      }
    },
  });
}

function workloadMetrics(counter: NewCounter, histogram: NewHistogram) {
  const updates = counter('workload_updates_total', 'Good messages from the Workload API.', ['rpc']);
  const failures = counter(
    'workload_failures_total',
    'Calls and messages of the Workload API that came to nothing.',
    ['rpc', 'reason'],
  );
  const answers = histogram(
    'workload_answer_seconds',
    'Time from a call to the Workload API to its first answer.',
    answerBuckets,
    ['rpc'],
  );
  const devIssued = counter('dev_svids_issued_total', 'SVIDs that the embedded CA issued.', ['kind']);
  return Object.freeze({
    devIssued: (kind: string, count: number): void => devIssued.inc({ kind }, count),
    updated: (rpc: string): void => updates.inc({ rpc }),
    failed: (rpc: string, reason: string): void => failures.inc({ rpc, reason }),
    answered: (rpc: string, seconds: number): void => answers.observe({ rpc }, seconds),
  });
}

function tokenMetrics(counter: NewCounter) {
  const requests = counter(
    'jwt_svid_requests_total',
    'JWT-SVIDs asked of the cache: answered from it (hit), after a fetch (miss), or not at all (failed).',
    ['result'],
  );
  const issued = counter(
    'jwt_svids_issued_total',
    'JWT-SVIDs that the identity source issued: the first for its identity and audience, or a renewal.',
    ['kind'],
  );
  const failures = counter('jwt_svid_failures_total', 'JWT-SVIDs that the identity source did not issue.', [
    'reason',
  ]);
  return Object.freeze({
    requested: (result: string): void => requests.inc({ result }),
    issued: (kind: string): void => issued.inc({ kind }),
    failed: (reason: string): void => failures.inc({ reason }),
  });
}

function trustMetrics(counter: NewCounter) {
  const updates = counter('trust_updates_total', 'Updates of SVIDs and bundles, and what became of them.', [
    'kind',
    'outcome',
  ]);
  const rotations = counter('svid_rotations_total', 'X.509-SVIDs that replaced another one of the same ID.', [
    'spiffe_id',
  ]);
  return Object.freeze({
    applied: (kind: string, outcome: string): void => updates.inc({ kind, outcome }),
    rotated: (spiffeId: string): void => rotations.inc({ spiffe_id: spiffeId }),
  });
}

function federationMetrics(counter: NewCounter, gauge: NewGauge) {
  const updates = counter(
    'federation_bundles_total',
    'Bundles of federated trust domains that were taken, by where they came from.',
    ['trust_domain', 'origin', 'outcome'],
  );
  const refusals = counter(
    'federation_refusals_total',
    'Fetches of federated bundles that came to nothing; the last good bundle stayed.',
    ['trust_domain', 'reason'],
  );
  const fetched = gauge(
    'federation_fetched_timestamp_seconds',
    'When the bundle endpoint of this trust domain last gave a good bundle, in seconds since the epoch.',
    ['trust_domain'],
  );
  const served = counter('federation_served_total', 'Answers of our own bundle endpoint.', ['status']);
  return Object.freeze({
    taken: (trustDomain: string, origin: string, outcome: string): void =>
      updates.inc({ trust_domain: trustDomain, origin, outcome }),
    refused: (trustDomain: string, reason: string): void =>
      refusals.inc({ trust_domain: trustDomain, reason }),
    fetched: (trustDomain: string, at: number): void => fetched.set({ trust_domain: trustDomain }, at / 1000),
    removed: (trustDomain: string): void => fetched.remove({ trust_domain: trustDomain }),
    served: (status: number): void => served.inc({ status }),
  });
}

function sdsMetrics(counter: NewCounter, gauge: NewGauge) {
  const streams = gauge('sds_streams', 'SDS streams that are open.', ['protocol']);
  const opened = counter('sds_streams_opened_total', 'SDS streams that were opened.', ['protocol']);
  const pushes = counter('sds_pushes_total', 'Secrets that were sent to Envoys.', ['kind']);
  const acks = counter('sds_acks_total', 'Secrets that Envoys accepted.', ['kind']);
  const nacks = counter('sds_nacks_total', 'Secrets that Envoys refused.', ['kind']);
  const unknown = counter('sds_unknown_names_total', 'Names asked for that nothing was known of.', ['kind']);
  return Object.freeze({
    streamOpened(protocol: string): void {
      streams.inc({ protocol });
      opened.inc({ protocol });
    },
    streamClosed: (protocol: string): void => streams.dec({ protocol }),
    pushed: (kind: string): void => pushes.inc({ kind }),
    acked: (kind: string): void => acks.inc({ kind }),
    nacked: (kind: string): void => nacks.inc({ kind }),
    unknownName: (kind: string): void => unknown.inc({ kind }),
  });
}

function extAuthzMetrics(counter: NewCounter, histogram: NewHistogram) {
  const checks = counter('checks_total', 'Checks answered, by outcome and reason code.', [
    'outcome',
    'reason',
  ]);
  const checkSeconds = histogram(
    'check_seconds',
    'Time from a Check to its answer, policy included.',
    latencyBuckets,
    ['outcome'],
  );
  const engineSeconds = histogram(
    'engine_seconds',
    'Time the policy engine took for one query.',
    latencyBuckets,
  );
  const issuerKeys = counter(
    'bridge_key_fetches_total',
    'Fetches of the keys of the issuers that bridges trust.',
    ['outcome'],
  );
  const shadows = counter('shadow_decisions_total', 'Shadow decisions beside those of queries.', ['outcome']);
  const cache = counter('decision_cache_total', 'Decisions looked up in the cache.', ['outcome']);
  return Object.freeze({
    cache: Object.freeze({ looked: (outcome: string): void => cache.inc({ outcome }) }),
    shadowed: (outcome: string): void => shadows.inc({ outcome }),
    keysFetched: (outcome: string): void => issuerKeys.inc({ outcome }),
    checked(outcome: string, reason: string, seconds: number): void {
      checks.inc({ outcome, reason });
      checkSeconds.observe({ outcome }, seconds);
    },
    evaluated: (seconds: number): void => engineSeconds.observe(seconds),
  });
}

function policyMetrics(counter: NewCounter, gauge: NewGauge) {
  const bundles = counter(
    'policy_bundles_total',
    'Versions of policy bundles that were taken into force or refused, by the name of the bundle.',
    ['bundle', 'outcome'],
  );
  const workers = counter('policy_workers_replaced_total', 'Policy workers that ended and were replaced.', [
    'cause',
  ]);
  const requests = counter(
    'policy_bundle_requests_total',
    'Requests to the service of a policy bundle: answered with a bundle (new), with nothing newer (unchanged), or not well (failed).',
    ['bundle', 'outcome'],
  );
  const answered = gauge(
    'policy_bundle_answered_timestamp_seconds',
    'When the service of this policy bundle last gave a good answer, in seconds since the epoch.',
    ['bundle'],
  );
  const pushes = counter('policy_pushes_total', 'Files pushed to OPA, and what became of them.', ['outcome']);
  const losses = counter(
    'policy_push_losses_total',
    'Times that OPA no longer had the files pushed to it.',
    [],
  );
  return Object.freeze({
    bundleRequested: (bundle: string, outcome: string): void => requests.inc({ bundle, outcome }),
    bundleAnswered: (bundle: string, at: number): void => answered.set({ bundle }, at / 1000),
    pushed: (outcome: string): void => pushes.inc({ outcome }),
    pushLost: (): void => losses.inc({}),
    bundleLoaded: (bundle: string, outcome: string): void => bundles.inc({ bundle, outcome }),
    workerReplaced: (cause: string): void => workers.inc({ cause }),
  });
}

function outputMetrics(counter: NewCounter) {
  const sets = counter('output_sets_total', 'Sets of files, and what became of them.', ['output', 'outcome']);
  const signals = counter('output_signals_total', 'Reload signals after a new set of files.', [
    'output',
    'outcome',
  ]);
  /** The meter of one entry of `outputs`. */
  return (index: number) => {
    const output = String(index);
    return Object.freeze({
      set: (outcome: string): void => sets.inc({ output, outcome }),
      signalled: (outcome: string): void => signals.inc({ output, outcome }),
    });
  };
}

function decisionLogMetrics(counter: NewCounter) {
  const dropped = counter(
    'decisions_dropped_total',
    'Checks without a record in the decision log, or whose record never reached the service, by reason.',
    ['reason'],
  );
  const sent = counter('decisions_sent_total', 'Decision log records that the service took.');
  const shortened = counter(
    'decisions_shortened_total',
    'Decision log records sent without input and result, because they were too large.',
  );
  const withheld = counter(
    'decisions_withheld_total',
    'Decision log records without input and result, because system.log.mask or drop could not be evaluated.',
  );
  const failures = counter(
    'decision_uploads_failed_total',
    'Batches that the decision log service did not take.',
  );
  return Object.freeze({
    decisionDropped: (reason: string): void => dropped.inc({ reason }),
    decisionsLost: (reason: string, count: number): void => dropped.inc({ reason }, count),
    decisionsSent: (count: number): void => sent.inc(count),
    decisionWithheld: (): void => withheld.inc(),
    decisionShortened: (): void => shortened.inc(),
    uploadFailed: (): void => failures.inc(),
  });
}

function tracingMetrics(counter: NewCounter) {
  const exported = counter('spans_exported_total', 'Spans that the collector took.');
  const dropped = counter('spans_dropped_total', 'Spans that were not sent, or not taken, by reason.', [
    'reason',
  ]);
  return Object.freeze({
    spansExported: (count: number): void => exported.inc(count),
    spansDropped: (reason: string, count: number): void => dropped.inc({ reason }, count),
  });
}

function configMetrics(counter: NewCounter, gauge: NewGauge) {
  const reads = counter(
    'config_reads_total',
    'Times that the configuration was read again, and what came of it.',
    ['outcome'],
  );
  const denied = gauge('denied_identities', 'Patterns of denied identities in force.');
  return Object.freeze({
    configRead: (outcome: string): void => reads.inc({ outcome }),
    deniedIdentities: (count: number): void => denied.set(count),
  });
}
