import { createInstruments } from './instruments.ts';
import { configMetrics } from './metrics/config.ts';
import { decisionLogMetrics } from './metrics/decision-log.ts';
import { extAuthzMetrics } from './metrics/ext-authz.ts';
import { federationMetrics } from './metrics/federation.ts';
import { identityMetrics } from './metrics/identity.ts';
import { outputMetrics } from './metrics/outputs.ts';
import { policyMetrics } from './metrics/policy.ts';
import { sdsMetrics } from './metrics/sds.ts';
import { tokenMetrics } from './metrics/tokens.ts';
import { tracingMetrics } from './metrics/tracing.ts';
import { trustMetrics } from './metrics/trust.ts';
import { workloadMetrics } from './metrics/workload.ts';

/** Every meter of the program: each group fits the interface that its room declares. */
export type Metrics = ReturnType<typeof createMetrics>;

/**
 * Registers every metric, once. Labels have closed sets of values, or our own SPIFFE IDs and the trust domains held, which
 * are bounded; nothing that a peer can choose is ever a label.
 */
export function createMetrics(info: { version: string; nodeVersion: string }) {
  const instruments = createInstruments();
  instruments
    .gauge('build_info', 'Always 1; the version of the program and of Node.', ['version', 'node'])
    .set({ version: info.version, node: info.nodeVersion }, 1);
  return Object.freeze({
    identity: identityMetrics(instruments),
    workload: workloadMetrics(instruments),
    trust: trustMetrics(instruments),
    federation: federationMetrics(instruments),
    tokens: tokenMetrics(instruments),
    sds: sdsMetrics(instruments),
    extAuthz: extAuthzMetrics(instruments),
    policy: policyMetrics(instruments),
    outputs: outputMetrics(instruments),
    decisionLog: decisionLogMetrics(instruments),
    tracing: tracingMetrics(instruments),
    config: configMetrics(instruments),
    render: instruments.render,
    list: instruments.list,
  });
}
