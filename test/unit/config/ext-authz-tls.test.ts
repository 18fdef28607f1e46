import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

function problemsOf(text: string): readonly string[] {
  try {
    loadConfig({ text, env: {} });
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

const tls = 'tls: {client_spiffe_ids: ["spiffe://a.example/envoy"]}';

describe('options about TLS of ext_authz', () => {
  it('let its socket be on every address, and give out tokens', () => {
    const more = 'inject_jwt_svid: [{audience: billing}]';
    assert.deepEqual(problemsOf(`ext_authz: {listen: "tcp://0.0.0.0:9903", ${tls}, ${more}}`), []);
    const { config } = loadConfig({ text: `ext_authz: {listen: "tcp://0.0.0.0:9903", ${tls}}`, env: {} });
    assert.deepEqual(config.extAuthz.tls, { clientSpiffeIds: ['spiffe://a.example/envoy'] });
  });

  it('without TLS tcp stays on loopback, whatever else is set', () => {
    const message =
      'must be on loopback when it is tcp, such as tcp://127.0.0.1:9901, unless ext_authz.tls is set';
    const listen = 'listen: "tcp://0.0.0.0:9903"';
    assert.deepEqual(problemsOf(`ext_authz: {${listen}}`), [`ext_authz.listen: ${message}`]);
    assert.deepEqual(problemsOf(`ext_authz: {${listen}, tls: {client_spiffe_ids: []}}`), [
      `ext_authz.listen: ${message}`,
    ]);
    assert.equal(problemsOf(listen).length, 1);
  });

  it('need a tcp socket where SDS is not served', () => {
    const message =
      'ext_authz.tls: needs an ext_authz.listen of its own that is tcp, such as tcp://0.0.0.0:9903';
    for (const text of [
      `ext_authz: {${tls}}`,
      `ext_authz: {listen: "unix:///run/authz.sock", ${tls}}`,
      `listen: "tcp://127.0.0.1:9901"\next_authz: {listen: "tcp://127.0.0.1:9901", ${tls}}`,
    ]) {
      assert.deepEqual(problemsOf(text), [message], text);
    }
  });

  it('name clients of the own trust domain only', () => {
    const of = (ids: string, more = ''): readonly string[] =>
      problemsOf(`${more}ext_authz: {listen: "tcp://0.0.0.0:9903", tls: {client_spiffe_ids: [${ids}]}}`);
    assert.deepEqual(of('"spiffe://a.example/x"', 'trust_domain: b.example\n'), [
      'ext_authz.tls.client_spiffe_ids[0]: must be of the own trust domain, b.example',
    ]);
    assert.deepEqual(of('"spiffe://a.example/x", "spiffe://b.example/x"'), [
      'ext_authz.tls.client_spiffe_ids[1]: must be of the own trust domain, a.example',
    ]);
    assert.deepEqual(of('"spiffe://a.example/x"', 'trust_domain: a.example\n'), []);
  });
});
