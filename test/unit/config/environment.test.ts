import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isScalar, readEnvironment, variableOf } from '../../../src/config/environment.ts';
import { listOptions } from '../../../src/config/options.ts';

const options = listOptions();

describe('environment', () => {
  it('has one variable for each scalar option, and no two options share one', () => {
    const names = options.filter(isScalar).map((option) => variableOf(option.path));
    assert.equal(new Set(names).size, names.length);
    assert.ok(names.includes('SVIDECAR_ADMIN_LISTEN'));
    assert.ok(names.includes('SVIDECAR_IDENTITY_WORKLOAD_API_ADDRESS'));
    assert.ok(!names.some((name) => name.startsWith('SVIDECAR_EXT_AUTHZ_QUERIES')));
  });

  it('turns text into the type of its option', () => {
    const { overrides } = readEnvironment(
      {
        SVIDECAR_SDS_ENABLED: 'false',
        SVIDECAR_EXT_AUTHZ_LIMITS_MAX_CONCURRENT: '7',
        SVIDECAR_LISTEN_MODE: '0600',
      },
      options,
    );
    assert.deepEqual(
      overrides.map(({ path, value }) => [path, value]),
      [
        ['sds.enabled', false],
        ['ext_authz.limits.max_concurrent', 7],
        ['listen_mode', '0600'],
      ],
    );
  });

  it('takes an empty variable for an unset one', () => {
    const settings = readEnvironment(
      { SVIDECAR_LISTEN: '', SPIFFE_TRUST_DOMAIN: '', TLS_MODE: '', SPIFFE_ENDPOINT_SOCKET: '' },
      options,
    );
    assert.deepEqual(settings, { fallbacks: [], overrides: [], problems: [], warnings: [] });
  });

  it('only warns of a SVIDECAR_ variable that it does not know, and suggests the nearest', () => {
    const { warnings, problems } = readEnvironment(
      { SVIDECAR_PORT: 'tcp://10.0.0.1:80', SVIDECAR_ADMIN_LISTEM: '127.0.0.1:1' },
      options,
    );
    assert.deepEqual(problems, []);
    assert.deepEqual(warnings, [
      'SVIDECAR_PORT names no option',
      'SVIDECAR_ADMIN_LISTEM names no option; did you mean SVIDECAR_ADMIN_LISTEN?',
    ]);
  });

  it('refuses a TLS_MODE other than spiffe and file', () => {
    const { problems } = readEnvironment({ TLS_MODE: 'mtls' }, options);
    assert.deepEqual(problems, [
      { path: 'identity.source', message: 'TLS_MODE must be spiffe or file, not "mtls"' },
    ]);
  });

  it('refuses two variables that say different things about who we are', () => {
    const { problems } = readEnvironment(
      { SPIFFE_TRUST_DOMAIN: 'a.example', SVIDECAR_TRUST_DOMAIN: 'b.example' },
      options,
    );
    assert.deepEqual(problems, [
      { path: 'trust_domain', message: 'SPIFFE_TRUST_DOMAIN and SVIDECAR_TRUST_DOMAIN say different things' },
    ]);
  });
});
