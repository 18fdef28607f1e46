import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { listOptions } from '../../../src/config/options.ts';

const options = listOptions();

/** Every key of the product's contract, whichever version brings it. */
const contract = `
identity.source identity.workload_api.address identity.workload_api.on_permission_denied
identity.files.certificate identity.files.private_key identity.files.bundle identity.files.federated_bundles
identity.dev.trust_domain identity.dev.spiffe_ids identity.dev.svid_ttl identity.dev.jwt_svid_ttl
identity.dev.serve_workload_api trust_domain listen listen_mode sds.enabled sds.default_svid_name
sds.default_bundle_name sds.default_all_bundles_name sds.spiffe_validator sds.default_svid_hint sds.jwt_audiences
sds.unknown_names ext_authz.enabled ext_authz.listen ext_authz.path ext_authz.input ext_authz.queries[].match.peer
ext_authz.queries[].match.method ext_authz.queries[].match.path ext_authz.queries[].match.host
ext_authz.queries[].match.context ext_authz.queries[].path ext_authz.queries[].input ext_authz.queries[].cache_key
ext_authz.queries[].dry_run ext_authz.queries[].set ext_authz.peer.require ext_authz.peer.verify_certificate
ext_authz.peer.trust_xfcc ext_authz.peer.jwt_svid.header ext_authz.peer.jwt_svid.audiences
ext_authz.peer.allowed_identities ext_authz.peer.denied_identities
ext_authz.peer.denied_identities_file ext_authz.dry_run ext_authz.on_failure ext_authz.header_mode ext_authz.cache.ttl
ext_authz.cache.max_entries ext_authz.inject_jwt_svid ext_authz.inject_jwt_svid[].match.peer ext_authz.inject_jwt_svid[].match.method
ext_authz.inject_jwt_svid[].match.path ext_authz.inject_jwt_svid[].match.host ext_authz.inject_jwt_svid[].match.context
ext_authz.inject_jwt_svid[].audience ext_authz.inject_jwt_svid[].header ext_authz.inject_jwt_svid[].scheme
ext_authz.bridge ext_authz.bridge[].match.method ext_authz.bridge[].match.path ext_authz.bridge[].match.host
ext_authz.bridge[].match.context ext_authz.bridge[].jwks_url ext_authz.bridge[].issuer ext_authz.bridge[].audience
ext_authz.bridge[].header ext_authz.bridge[].spiffe_id ext_authz.bridge[].mint_audience
ext_authz.limits.max_message_bytes ext_authz.limits.max_concurrent
ext_authz.limits.reflection ext_authz.rate_limit.requests_per_second ext_authz.rate_limit.burst ext_authz.tls.client_spiffe_ids ext_authz.body.parse ext_authz.body.max_bytes
ext_authz.body.proto_descriptor ext_authz.shadow ext_authz.shadow[].path ext_authz.shadow[].match.peer ext_authz.shadow[].match.method
ext_authz.shadow[].match.path ext_authz.shadow[].match.host ext_authz.shadow[].match.context policy.engine policy.timeout policy.opa.url policy.opa.push policy.opa.push[].policy policy.opa.push[].data policy.opa.push[].file
policy.opa.spiffe_ids policy.bundle.file policy.bundle.name policy.bundle.url policy.bundle.polling.min
policy.bundle.polling.max policy.bundle.polling.long_poll policy.bundle.auth.bearer_file policy.bundle.auth.spiffe_ids
policy.bundle.verification_key policy.bundle.persist_dir federation.persist_dir
federation.trust_domains federation.trust_domains[].name federation.trust_domains[].bundle_endpoint
federation.trust_domains[].profile federation.trust_domains[].endpoint_spiffe_id
federation.trust_domains[].bootstrap_bundle federation.trust_domains[].ca_file
federation.trust_domains[].allowed_identities federation.serve.listen federation.serve.profile
federation.serve.refresh_hint federation.serve.certificate federation.serve.private_key
outputs outputs[].directory outputs[].certificate outputs[].private_key outputs[].bundle outputs[].federated outputs[].mode
outputs[].secret_mode outputs[].jwt outputs[].jwt[].audience outputs[].jwt[].file outputs[].signal.pid_file
outputs[].signal.name admin.listen admin.allow_jwt_svid
admin.probe_listen decision_log.console decision_log.mask decision_log.service.url decision_log.sample log.level
`
  .trim()
  .split(/\s+/);

describe('options', () => {
  it('know every key of the contract', () => {
    const known = new Set(options.map(({ path }) => path));
    for (const path of contract) assert.equal(known.has(path), true, path);
  });

  it('have nothing beside the contract but what an ADR has added', () => {
    // ADR 19
    const added = ['tracing.otlp_endpoint', 'tracing.sample', 'tracing.service_name'];

    const leaves = options.filter(({ kind }) => kind !== 'section').map(({ path }) => path);
    assert.deepEqual(
      leaves.filter((path) => ![...contract, ...added, 'ext_authz.queries'].includes(path)),
      [],
    );
  });

  it('each have a sentence, and a default unless its absence is said to mean something', () => {
    for (const { path, kind, sentence, otherwise, default: value } of options) {
      if (kind === 'section') continue;
      assert.match(sentence ?? '', /^[A-Z].*\.$/, path);
      assert.ok(value === undefined || otherwise === undefined, path);
    }
  });

  it('tell type, bounds and default as they are written in a file', () => {
    const timeout = options.find(({ path }) => path === 'policy.timeout');
    assert.deepEqual(timeout, {
      path: 'policy.timeout',
      type: 'duration',
      kind: 'text',
      default: '150ms',
      otherwise: undefined,
      required: false,
      bounds: '1ms to 1m',
      sentence: 'Bounds the whole Check.',
    });
    const bounds = (path: string) => options.find((option) => option.path === path)?.bounds;
    assert.equal(bounds('ext_authz.limits.max_concurrent'), '1 to 100000');
    assert.equal(bounds('ext_authz.queries'), 'at most 1000 items');
    assert.equal(options.find(({ path }) => path === 'ext_authz.shadow[].path')?.required, true);
  });
});
