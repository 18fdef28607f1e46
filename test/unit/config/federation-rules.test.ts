import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

type Entry = Readonly<Record<string, unknown>>;

const spiffe: Entry = {
  name: 'b.example',
  bundle_endpoint: 'https://b.example:8443',
  profile: 'https_spiffe',
  endpoint_spiffe_id: 'spiffe://b.example/spire/server',
  bootstrap_bundle: 'b.json',
};
const web: Entry = { name: 'c.example', bundle_endpoint: 'https://c.example', profile: 'https_web' };

const load = (federation: object, more: object = {}) =>
  loadConfig({
    text: JSON.stringify({ federation, ...more }),
    path: '/etc/svidecar/config.yaml',
    env: {},
  }).config;

function problemsOf(federation: object, more: object = {}): readonly string[] {
  try {
    load(federation, more);
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

describe('federation in the config', () => {
  it('is empty by default', () => {
    assert.deepEqual(load({}).federation, { persistDir: undefined, trustDomains: [], serve: undefined });
  });

  it('takes both profiles, and files count from the folder of the config', () => {
    const { trustDomains, persistDir } = load({
      persist_dir: 'bundles',
      trust_domains: [spiffe, { ...web, ca_file: '/ca.pem', allowed_identities: ['spiffe://c.example/a/*'] }],
    }).federation;
    assert.equal(persistDir, '/etc/svidecar/bundles');
    assert.deepEqual(trustDomains[0], {
      trustDomain: 'b.example',
      bundleEndpoint: 'https://b.example:8443/',
      profile: { kind: 'https_spiffe', endpointSpiffeId: 'spiffe://b.example/spire/server' },
      bootstrapBundle: '/etc/svidecar/b.json',
      allowedIdentities: [],
    });
    assert.deepEqual(trustDomains[1]?.profile, { kind: 'https_web', caFile: '/ca.pem' });
    assert.equal(trustDomains[1]?.allowedIdentities[0]?.text, 'spiffe://c.example/a/*');
  });

  it('serves by our own X509-SVID unless a certificate is given', () => {
    assert.deepEqual(load({ serve: { listen: '127.0.0.1:8443' } }).federation.serve, {
      listen: { host: '127.0.0.1', port: 8443 },
      refreshHintS: 300,
      files: undefined,
    });
    const files = { certificate: 'tls.pem', private_key: 'tls.key' };
    const serve = { listen: '0.0.0.0:8443', profile: 'https_web', refresh_hint: '1h', ...files };
    assert.deepEqual(load({ serve }).federation.serve, {
      listen: { host: '0.0.0.0', port: 8443 },
      refreshHintS: 3600,
      files: { certificate: '/etc/svidecar/tls.pem', privateKey: '/etc/svidecar/tls.key' },
    });
  });

  const own = { trust_domain: 'a.example' };
  const bare = { ...spiffe, bootstrap_bundle: null };
  for (const [what, federation, more, expected] of [
    [
      'our own trust domain',
      { trust_domains: [{ ...web, name: 'a.example' }] },
      own,
      /\[0\]\.name: is our own/,
    ],
    [
      'our own by the embedded CA',
      { trust_domains: [{ ...web, name: 'dev.local' }] },
      { identity: { source: 'dev' } },
      /\[0\]\.name: is our own/,
    ],
    ['a domain twice', { trust_domains: [web, web] }, {}, /\[1\]\.name: is there twice/],
    [
      'an endpoint over http',
      { trust_domains: [{ ...web, bundle_endpoint: 'http://c.example' }] },
      {},
      /\[0\]\.bundle_endpoint: must be an https URL/,
    ],
    [
      'an endpoint with a user name',
      { trust_domains: [{ ...web, bundle_endpoint: 'https://u:p@c.example' }] },
      {},
      /must not contain a user name/,
    ],
    [
      'https_spiffe without the ID',
      { trust_domains: [{ ...spiffe, endpoint_spiffe_id: null }] },
      {},
      /endpoint_spiffe_id: is required/,
    ],
    [
      'an endpoint ID without a path',
      { trust_domains: [{ ...spiffe, endpoint_spiffe_id: 'spiffe://b.example' }] },
      {},
      /endpoint_spiffe_id: has no path/,
    ],
    [
      'https_spiffe without a bootstrap bundle',
      { trust_domains: [bare] },
      {},
      /bootstrap_bundle: is required.*b\.example/,
    ],
    [
      'an endpoint of a domain that nobody holds',
      { trust_domains: [{ ...bare, endpoint_spiffe_id: 'spiffe://d.example/x' }] },
      own,
      /bootstrap_bundle: is required.*d\.example/,
    ],
    [
      'a CA file with https_spiffe',
      { trust_domains: [{ ...spiffe, ca_file: 'x' }] },
      {},
      /ca_file: is only for/,
    ],
    [
      'a SPIFFE ID with https_web',
      { trust_domains: [{ ...web, endpoint_spiffe_id: 'spiffe://c.example/x' }] },
      {},
      /endpoint_spiffe_id: is only for/,
    ],
    [
      'an allowed identity of another domain',
      { trust_domains: [{ ...web, allowed_identities: ['spiffe://c.example/*', 'spiffe://b.example/*'] }] },
      {},
      /allowed_identities\[1\]: is not of c\.example/,
    ],
    [
      'a certificate for https_spiffe',
      { serve: { listen: '127.0.0.1:8443', certificate: 'x' } },
      {},
      /serve\.certificate: is only for/,
    ],
    [
      'https_web without a key',
      { serve: { listen: '127.0.0.1:8443', profile: 'https_web', certificate: 'x' } },
      {},
      /serve\.private_key: is required/,
    ],
    [
      'a socket that is taken',
      { serve: { listen: '127.0.0.1:9902' } },
      {},
      /federation\.serve\.listen: is the same socket as admin\.listen|admin\.listen: is the same/,
    ],
  ] as const) {
    it(`${what} is a problem`, () => {
      const problems = problemsOf(federation, more);
      assert.equal(problems.length, 1, problems.join('\n'));
      assert.match(problems[0] ?? '', expected);
    });
  }

  it('an endpoint of our own domain, or of another partner, needs no bootstrap bundle', () => {
    const ours = { ...bare, endpoint_spiffe_id: 'spiffe://a.example/publisher' };
    const theirs = { ...bare, endpoint_spiffe_id: 'spiffe://c.example/publisher' };
    assert.deepEqual(problemsOf({ trust_domains: [ours] }, own), []);
    assert.deepEqual(problemsOf({ trust_domains: [theirs, web] }), []);
  });
});
