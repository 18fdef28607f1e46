import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { DecisionLogMeter } from '../../../src/extauthz/decision-log/decision-log.ts';
import type { DecisionUploadMeter } from '../../../src/extauthz/decision-log/decision-upload.ts';
import type { ExtAuthzMeter } from '../../../src/extauthz/service.ts';
import type { FederationMeter } from '../../../src/federation/meter.ts';
import type { OutputMeter } from '../../../src/outputs/output-writer.ts';
import type { PolicyMeter } from '../../../src/policy/wasm/opa-wasm.ts';
import type { SdsMeter } from '../../../src/sds/meter.ts';
import { createMetrics, type Metrics } from '../../../src/telemetry/metrics.ts';
import type { TrustMeter } from '../../../src/trust/store.ts';
import type { WorkloadMeter } from '../../../src/workload/meter.ts';

const create = (): Metrics => createMetrics({ version: '1.2.3', nodeVersion: '24.0.0' });

async function valueOf(metrics: Metrics, series: string): Promise<number | undefined> {
  const { body } = await metrics.render();
  const line = body.split('\n').find((text) => text.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

describe('metrics', () => {
  it('fits the meters that the rooms declare', () => {
    const metrics = create();
    const meters: {
      sds: SdsMeter;
      workload: WorkloadMeter;
      trust: TrustMeter;
      federation: FederationMeter;
      policy: PolicyMeter;
      extAuthz: ExtAuthzMeter;
      decisionLog: DecisionLogMeter & DecisionUploadMeter;
      outputs: (index: number) => OutputMeter;
    } = metrics;
    assert.equal(meters, metrics);
  });

  it('counts Checks by outcome and reason, and times them', async () => {
    const metrics = create();
    metrics.extAuthz.checked('deny', 'policy_denied', 0.004);
    metrics.extAuthz.checked('deny', 'policy_denied', 0.2);
    metrics.extAuthz.evaluated(0.003);
    assert.equal(await valueOf(metrics, 'svidecar_checks_total{outcome="deny",reason="policy_denied"}'), 2);
    assert.equal(await valueOf(metrics, 'svidecar_check_seconds_bucket{le="0.005",outcome="deny"}'), 1);
    assert.equal(await valueOf(metrics, 'svidecar_check_seconds_count{outcome="deny"}'), 2);
    assert.equal(await valueOf(metrics, 'svidecar_engine_seconds_count'), 1);
  });

  it('counts bundles of partners by origin and refusal, and tells their age until they are gone', async () => {
    const metrics = create();
    metrics.federation.taken('partner.example', 'endpoint', 'changed');
    metrics.federation.refused('partner.example', 'sequence_rollback');
    metrics.federation.fetched('partner.example', 1_500);
    metrics.federation.served(404);
    const series = (name: string, labels: string): Promise<number | undefined> =>
      valueOf(metrics, `svidecar_federation_${name}{${labels}}`);
    const taken = 'trust_domain="partner.example",origin="endpoint",outcome="changed"';
    assert.equal(await series('bundles_total', taken), 1);
    assert.equal(
      await series('refusals_total', 'trust_domain="partner.example",reason="sequence_rollback"'),
      1,
    );
    assert.equal(await series('fetched_timestamp_seconds', 'trust_domain="partner.example"'), 1.5);
    assert.equal(await series('served_total', 'status="404"'), 1);
    metrics.federation.removed('partner.example');
    assert.equal(await series('fetched_timestamp_seconds', 'trust_domain="partner.example"'), undefined);
  });

  it('counts what SDS does by the kind of name, and streams by protocol', async () => {
    const { sds, ...metrics } = create();
    const all = { sds, ...metrics } as Metrics;
    sds.streamOpened('sotw');
    sds.streamOpened('sotw');
    sds.streamClosed('sotw');
    sds.pushed('default_svid');
    sds.acked('default_svid');
    sds.nacked('all_bundles');
    sds.unknownName('unknown');
    assert.equal(await valueOf(all, 'svidecar_sds_streams{protocol="sotw"}'), 1);
    assert.equal(await valueOf(all, 'svidecar_sds_streams_opened_total{protocol="sotw"}'), 2);
    assert.equal(await valueOf(all, 'svidecar_sds_pushes_total{kind="default_svid"}'), 1);
    assert.equal(await valueOf(all, 'svidecar_sds_acks_total{kind="default_svid"}'), 1);
    assert.equal(await valueOf(all, 'svidecar_sds_nacks_total{kind="all_bundles"}'), 1);
    assert.equal(await valueOf(all, 'svidecar_sds_unknown_names_total{kind="unknown"}'), 1);
  });

  it('tells expiry of what is held now, and forgets what is held no more', async () => {
    const metrics = create();
    metrics.identity.held({
      svids: [{ spiffeId: 'spiffe://a.example/web', fingerprint: 'aa', expiresAt: 1_700_000_000_000 }],
      bundles: [
        { trustDomain: 'a.example', x509Authorities: 2, jwtAuthorities: 1, expiresAt: 1_800_000_000_000 },
      ],
    });
    const svid = 'svidecar_svid_expiry_timestamp_seconds{spiffe_id="spiffe://a.example/web"}';
    const bundle = 'svidecar_bundle_expiry_timestamp_seconds{trust_domain="a.example"}';
    assert.equal(await valueOf(metrics, svid), 1_700_000_000);
    assert.equal(await valueOf(metrics, bundle), 1_800_000_000);
    assert.equal(
      await valueOf(metrics, 'svidecar_bundle_authorities{trust_domain="a.example",kind="x509"}'),
      2,
    );
    metrics.identity.held({ svids: [], bundles: [] });
    assert.equal(await valueOf(metrics, svid), undefined);
    assert.equal(await valueOf(metrics, bundle), undefined);
  });

  it('counts X.509-SVIDs once each, first ones and renewals apart, and updates of bundles', async () => {
    const metrics = create();
    const held = (spiffeId: string, fingerprint: string) => ({ spiffeId, fingerprint, expiresAt: 0 });
    const web = held('spiffe://a.example/web', 'aa');
    metrics.identity.held({ svids: [web], bundles: [] });
    metrics.identity.held({ svids: [web, held('spiffe://a.example/api', 'bb')], bundles: [] });
    metrics.identity.held({ svids: [held('spiffe://a.example/web', 'cc')], bundles: [] });
    const issued = (kind: string) => valueOf(metrics, `svidecar_x509_svids_issued_total{kind="${kind}"}`);
    assert.equal(await issued('first'), 2);
    assert.equal(await issued('renewal'), 1);
    metrics.identity.bundleUpdated('a.example');
    assert.equal(await valueOf(metrics, 'svidecar_bundle_updates_total{trust_domain="a.example"}'), 1);
  });

  it('counts sets of files and signals by the entry of the configuration', async () => {
    const metrics = create();
    metrics.outputs(1).set('written');
    metrics.outputs(1).signalled('failed');
    assert.equal(await valueOf(metrics, 'svidecar_output_sets_total{output="1",outcome="written"}'), 1);
    assert.equal(await valueOf(metrics, 'svidecar_output_signals_total{output="1",outcome="failed"}'), 1);
  });

  it('counts sources, rotations, policies and dropped decisions', async () => {
    const metrics = create();
    metrics.workload.updated('fetch_x509_svid');
    metrics.workload.failed('fetch_jwt_svid', 'permission_denied');
    metrics.workload.answered('fetch_x509_svid', 0.02);
    metrics.trust.applied('x509', 'refused');
    metrics.trust.rotated('spiffe://a.example/web');
    metrics.policy.bundleLoaded('policy', 'activated');
    metrics.policy.workerReplaced('timeout');
    metrics.decisionLog.decisionDropped('queue_full');
    for (const series of [
      'svidecar_workload_updates_total{rpc="fetch_x509_svid"}',
      'svidecar_workload_failures_total{rpc="fetch_jwt_svid",reason="permission_denied"}',
      'svidecar_workload_answer_seconds_bucket{le="0.025",rpc="fetch_x509_svid"}',
      'svidecar_trust_updates_total{kind="x509",outcome="refused"}',
      'svidecar_svid_rotations_total{spiffe_id="spiffe://a.example/web"}',
      'svidecar_policy_bundles_total{bundle="policy",outcome="activated"}',
      'svidecar_policy_workers_replaced_total{cause="timeout"}',
      'svidecar_decisions_dropped_total{reason="queue_full"}',
    ]) {
      assert.equal(await valueOf(metrics, series), 1, series);
    }
  });

  it('keeps every instance apart: there is no registry of the process', async () => {
    const one = create();
    one.decisionLog.decisionDropped('queue_full');
    assert.equal(await valueOf(create(), 'svidecar_decisions_dropped_total{reason="queue_full"}'), undefined);
  });

  it('names every metric with the prefix, and tells version and start', async () => {
    const metrics = create();
    assert.ok(metrics.list().every(({ name }) => name.startsWith('svidecar_')));
    assert.equal(await valueOf(metrics, 'svidecar_build_info{version="1.2.3",node="24.0.0"}'), 1);
    assert.ok(((await valueOf(metrics, 'svidecar_process_start_time_seconds')) ?? 0) > 1_600_000_000);
  });
});
