import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { parseYaml } from '../../../src/config/yaml.ts';
import { type BootstrapOptions, buildBootstrap, formatBootstrap } from '../../../src/envoy/bootstrap.ts';
import { parseIdPattern } from '../../../src/spiffe/match.ts';

const config = (text: string): Config => loadConfig({ text, env: {} }).config;

const server: BootstrapOptions = {
  mode: 'server',
  protocol: 'http',
  sds: 'sotw',
  listener: { host: '0.0.0.0', port: 8443 },
  upstream: { kind: 'tcp', host: '127.0.0.1', port: 8080 },
  nodeId: 'node',
  nodeCluster: 'cluster',
};
const client: BootstrapOptions = {
  ...server,
  mode: 'client',
  listener: { host: '127.0.0.1', port: 9000 },
  upstream: { kind: 'tcp', host: 'web.internal', port: 8443 },
  upstreamIdentity: parseIdPattern('spiffe://a.example/web'),
};

/** Every value under that key, anywhere. */
function under(value: unknown, key: string): unknown[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, child]) => [
    ...(name === key ? [child] : []),
    ...under(child, key),
  ]);
}

const one = (value: unknown, key: string): unknown => {
  const found = under(value, key);
  assert.equal(found.length, 1, key);
  return found[0];
};

describe('bootstrap of a server', () => {
  it('asks an ext_authz of its own TLS over mTLS, on loopback when that is on every address', () => {
    const text =
      'ext_authz: {listen: "tcp://0.0.0.0:9903", tls: {client_spiffe_ids: ["spiffe://a.example/envoy"]}}';
    const { static_resources: resources } = buildBootstrap(config(text), server);
    const { clusters } = resources as { clusters: readonly { name: string }[] };
    const authz = clusters.find(({ name }) => name === 'svidecar_ext_authz');
    assert.deepEqual(one(authz, 'match_typed_subject_alt_names'), [
      { san_type: 'URI', matcher: { exact: 'spiffe://a.example/envoy' } },
    ]);
    assert.deepEqual(one(authz, 'socket_address'), { address: '127.0.0.1', port_value: 9903 });
    assert.equal(
      under(
        clusters.find(({ name }) => name === 'svidecar'),
        'transport_socket',
      ).length,
      0,
    );
  });

  it('demands a client certificate and TLS 1.3, and takes certificate and trust from SDS', () => {
    const bootstrap = buildBootstrap(config(''), server);
    assert.equal(one(bootstrap, 'require_client_certificate'), true);
    assert.deepEqual(one(bootstrap, 'tls_params'), {
      tls_minimum_protocol_version: 'TLSv1_3',
      tls_maximum_protocol_version: 'TLSv1_3',
    });
    const [certificate] = one(bootstrap, 'tls_certificate_sds_secret_configs') as { name: string }[];
    assert.equal(certificate?.name, 'default');
    const trust = one(bootstrap, 'validation_context_sds_secret_config') as { name: string };
    assert.equal(trust.name, 'ROOTCA');
  });

  it('uses the secret names of the config', () => {
    const names =
      'sds: {default_svid_name: mine, default_bundle_name: root, default_all_bundles_name: everyone}';
    const text = JSON.stringify(buildBootstrap(config(names), { ...server, trust: 'all' }));
    assert.match(text, /"name":"mine"/);
    assert.match(text, /"name":"everyone"/);
    assert.doesNotMatch(text, /"name":"root"/);
  });

  it('fails closed in ext_authz, with the certificate and a timeout above that of policy', () => {
    const bootstrap = buildBootstrap(config('policy: {timeout: 400ms}'), server);
    assert.equal(one(bootstrap, 'failure_mode_allow'), false);
    assert.equal(one(bootstrap, 'include_peer_certificate'), true);
    assert.equal(one(one(bootstrap, 'listeners'), 'timeout'), '0.5s');
  });

  it('has Envoy send no more of a body than is parsed', () => {
    const body = (text: string): unknown[] =>
      under(buildBootstrap(config(text), server), 'with_request_body');
    assert.deepEqual(body('ext_authz: {body: {max_bytes: 64KiB}}'), [
      { max_request_bytes: 65_536, allow_partial_message: true, pack_as_bytes: true },
    ]);
    assert.deepEqual(body('ext_authz: {body: {max_bytes: 0B}}'), []);
    assert.deepEqual(body('ext_authz: {body: {parse: false}}'), []);
  });

  it('has no ext_authz filter when the config turns it off', () => {
    assert.doesNotMatch(
      JSON.stringify(buildBootstrap(config('ext_authz: {enabled: false}'), server)),
      /ext_authz/,
    );
  });

  it('asks ext_authz on its own socket when it has one', () => {
    const clusters = (text: string): string[] =>
      (one(buildBootstrap(config(text), server), 'clusters') as { name: string }[]).map(({ name }) => name);
    assert.deepEqual(clusters(''), ['svidecar', 'upstream']);
    assert.deepEqual(clusters('listen: unix:///a\next_authz: {listen: "unix:///a"}'), [
      'svidecar',
      'upstream',
    ]);
    assert.deepEqual(clusters('ext_authz: {listen: "tcp://127.0.0.1:9000"}'), [
      'svidecar',
      'svidecar_ext_authz',
      'upstream',
    ]);
  });

  it('writes allowed identities as URI matchers, and trusts all bundles when they span domains', () => {
    const allowed =
      'ext_authz: {peer: {allowed_identities: ["spiffe://a.example/*", "spiffe://b.example/x", "spiffe://b.example/*/y.z"]}}';
    const bootstrap = buildBootstrap(config(allowed), server);
    assert.deepEqual(one(bootstrap, 'match_typed_subject_alt_names'), [
      { san_type: 'URI', matcher: { prefix: 'spiffe://a.example/' } },
      { san_type: 'URI', matcher: { exact: 'spiffe://b.example/x' } },
      { san_type: 'URI', matcher: { safe_regex: { regex: String.raw`spiffe://b\.example/.*/y\.z` } } },
    ]);
    assert.match(JSON.stringify(bootstrap), /"name":"ALL"/);
  });

  it('pins the own trust domain when the config names it', () => {
    const sans = (text: string): unknown[] =>
      under(buildBootstrap(config(text), server), 'match_typed_subject_alt_names');
    const own = [[{ san_type: 'URI', matcher: { prefix: 'spiffe://a.example/' } }]];
    assert.deepEqual(sans('trust_domain: a.example'), own);
    assert.deepEqual(sans('identity: {source: dev, dev: {trust_domain: a.example}}'), own);
    assert.deepEqual(sans(''), []);
  });

  it('refuses an empty allow list, because Envoy takes no matchers for everybody', () => {
    assert.throws(() => buildBootstrap(config('ext_authz: {peer: {allowed_identities: []}}'), server), {
      name: 'ConfigError',
      message: /allowed_identities: is empty/,
    });
  });

  it('refuses a config without SDS', () => {
    assert.throws(() => buildBootstrap(config('sds: {enabled: false}'), server), /sds\.enabled: is false/);
  });

  it('checks a TCP connection before it is proxied', () => {
    const filters = one(buildBootstrap(config(''), { ...server, protocol: 'tcp' }), 'filters');
    assert.deepEqual(
      (filters as { name: string }[]).map(({ name }) => name),
      ['envoy.filters.network.ext_authz', 'envoy.filters.network.tcp_proxy'],
    );
  });

  it('replaces what a peer says of its certificate by what the handshake proved', () => {
    const bootstrap = buildBootstrap(config(''), server);
    assert.equal(one(bootstrap, 'forward_client_cert_details'), 'SANITIZE_SET');
    assert.equal(one(bootstrap, 'normalize_path'), true);
  });
});

describe('bootstrap of a client', () => {
  it('pins the SPIFFE ID of the server and speaks TLS 1.3, which Envoy would not by itself', () => {
    const bootstrap = buildBootstrap(config('ext_authz: {peer: {allowed_identities: []}}'), client);
    assert.deepEqual(one(bootstrap, 'match_typed_subject_alt_names'), [
      { san_type: 'URI', matcher: { exact: 'spiffe://a.example/web' } },
    ]);
    assert.match(JSON.stringify(one(bootstrap, 'tls_params')), /maximum_protocol_version":"TLSv1_3/);
    assert.doesNotMatch(JSON.stringify(bootstrap), /ext_authz/);
  });

  it('trusts all bundles when the server is of another domain', () => {
    const trusted = (text: string): unknown =>
      one(buildBootstrap(config(text), client), 'validation_context_sds_secret_config');
    assert.equal((trusted('trust_domain: b.example') as { name: string }).name, 'ALL');
    assert.equal((trusted('trust_domain: a.example') as { name: string }).name, 'ROOTCA');
  });

  it('is refused without the identity of the server', () => {
    assert.throws(() => buildBootstrap(config(''), { ...client, upstreamIdentity: undefined }), {
      message: /--upstream-spiffe-id: is required/,
    });
  });

  it('resolves a host name and takes an address as it is', () => {
    const type = (host: string): unknown => {
      const bootstrap = buildBootstrap(config(''), { ...client, upstream: { kind: 'tcp', host, port: 1 } });
      return (one(bootstrap, 'clusters') as { type: string }[])[1]?.type;
    };
    assert.equal(type('web.internal'), 'STRICT_DNS');
    assert.equal(type('10.0.0.1'), 'STATIC');
  });
});

describe('connections in a bootstrap', () => {
  const age = (text: string, options: BootstrapOptions): unknown =>
    one(buildBootstrap(config(text), options), 'max_connection_duration');

  it('end long before the certificates of their handshake, those of a client first', () => {
    assert.equal(age('', server), '600s');
    assert.equal(age('', client), '450s');
  });

  it('end within a quarter of the life of an SVID where the config says how long that is', () => {
    const dev = (ttl: string): string => `identity: {source: dev, dev: {svid_ttl: ${ttl}}}`;
    assert.equal(age(dev('16s'), server), '4s');
    assert.equal(age(dev('16s'), client), '3s');
    assert.equal(age(dev('24h'), server), '600s');
  });

  it('have no bound over TCP, where only the first byte is checked', () => {
    for (const options of [server, client]) {
      const bootstrap = buildBootstrap(config(''), { ...options, protocol: 'tcp' });
      assert.deepEqual(under(bootstrap, 'max_connection_duration'), []);
    }
  });
});

describe('SDS in a bootstrap', () => {
  it('is asked as state of the world or as delta, and sends the node once a stream', () => {
    for (const [sds, apiType] of [
      ['sotw', 'GRPC'],
      ['delta', 'DELTA_GRPC'],
    ] as const) {
      const bootstrap = buildBootstrap(config(''), { ...server, sds });
      assert.deepEqual(under(bootstrap, 'api_type'), [apiType, apiType]);
      assert.deepEqual(under(bootstrap, 'set_node_on_first_message_only'), [true, true]);
    }
  });

  it('goes over HTTP/2 to the socket of the config', () => {
    const [cluster] = one(buildBootstrap(config('listen: unix:///x.sock'), server), 'clusters') as object[];
    assert.deepEqual(one(cluster, 'pipe'), { path: '/x.sock' });
    assert.equal(under(cluster, 'http2_protocol_options').length, 1);
  });

  it('keeps its connection when clients give up Checks by the thousand', () => {
    const [cluster] = one(buildBootstrap(config(''), server), 'clusters') as object[];
    // Envoy's own bound of 1000 waiting resets ends it, and with it the Checks of everybody else.
    assert.deepEqual(under(cluster, 'max_outbound_control_frames'), [100_000]);
    assert.deepEqual(under(cluster, 'max_outbound_frames'), [100_000]);
  });

  it('lets the sidecar, not Envoy, judge what is too much at once', () => {
    const [cluster] = one(buildBootstrap(config(''), server), 'clusters') as object[];
    assert.deepEqual(under(cluster, 'max_requests'), [1_000_000]);
    assert.deepEqual(under(cluster, 'max_pending_requests'), [1_000_000]);
  });
});

describe('formatBootstrap', () => {
  it('quotes what a reader of YAML 1.1 would take for something else', () => {
    const text = formatBootstrap(buildBootstrap(config(''), { ...server, nodeId: 'n', nodeCluster: 'off' }));
    assert.match(text, /id: "n"\n {2}cluster: "off"/);
  });

  it('is the same bootstrap when read again', () => {
    const bootstrap = buildBootstrap(config(''), server);
    assert.deepEqual(parseYaml(formatBootstrap(bootstrap)), bootstrap);
  });
});

describe('bootstrap of a server that federates', () => {
  const entry = (name: string, allowed: string): string =>
    `{name: ${name}, bundle_endpoint: "https://${name}", profile: https_web, allowed_identities: [${allowed}]}`;
  const partners = (...entries: string[]): string => `federation: {trust_domains: [${entries.join(', ')}]}\n`;
  const agents = entry('b.example', '"spiffe://b.example/agents/*", "spiffe://b.example/web"');
  const matchersOf = (text: string): unknown =>
    one(buildBootstrap(config(text), server), 'match_typed_subject_alt_names');
  const trustOf = (text: string): string =>
    (one(buildBootstrap(config(text), server), 'validation_context_sds_secret_config') as { name: string })
      .name;

  it('lists the own identities and those of partners together, and trusts all bundles', () => {
    const text = `trust_domain: a.example\n${partners(agents)}`;
    assert.deepEqual(matchersOf(text), [
      { san_type: 'URI', matcher: { prefix: 'spiffe://a.example/' } },
      { san_type: 'URI', matcher: { prefix: 'spiffe://b.example/agents/' } },
      { san_type: 'URI', matcher: { exact: 'spiffe://b.example/web' } },
    ]);
    assert.equal(trustOf(text), 'ALL');
  });

  it('leaves out what ext_authz.peer.allowed_identities says of a partner, because its entry alone decides', () => {
    const peer =
      'ext_authz: {peer: {allowed_identities: ["spiffe://a.example/web", "spiffe://b.example/*"]}}\n';
    assert.deepEqual(matchersOf(`trust_domain: a.example\n${peer}${partners(agents)}`), [
      { san_type: 'URI', matcher: { exact: 'spiffe://a.example/web' } },
      { san_type: 'URI', matcher: { prefix: 'spiffe://b.example/agents/' } },
      { san_type: 'URI', matcher: { exact: 'spiffe://b.example/web' } },
    ]);
  });

  it('a partner of whom nobody is allowed gets no matcher and no trust', () => {
    const text = `trust_domain: a.example\n${partners(entry('b.example', ''))}`;
    assert.deepEqual(matchersOf(text), [{ san_type: 'URI', matcher: { prefix: 'spiffe://a.example/' } }]);
    assert.equal(trustOf(text), 'ROOTCA');
  });

  it('is refused when the own identities cannot be listed beside those of partners', () => {
    assert.throws(() => buildBootstrap(config(partners(agents)), server), {
      name: 'ConfigError',
      message: /^trust_domain: is needed/,
    });
  });

  it('is refused when what is allowed names partners only and their entries allow nobody', () => {
    const peer = 'ext_authz: {peer: {allowed_identities: ["spiffe://b.example/*"]}}\n';
    const text = `trust_domain: a.example\n${peer}${partners(entry('b.example', ''))}`;
    assert.throws(() => buildBootstrap(config(text), server), {
      name: 'ConfigError',
      message: /allowed_identities: names partners only/,
    });
  });
});
