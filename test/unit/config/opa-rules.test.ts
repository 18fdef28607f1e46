import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

function problemsOf(opa: string): readonly string[] {
  try {
    loadConfig({ text: `policy: {opa: {${opa}}}`, env: {} });
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

describe('policy.opa.spiffe_ids', () => {
  it('says who the OPA of an https url is', () => {
    const text =
      'policy: {opa: {url: "https://opa.internal:8181", spiffe_ids: ["spiffe://a.example/opa", "spiffe://b.example/opa"]}}';
    const { opa } = loadConfig({ text, env: {} }).config.policy;
    assert.deepEqual(opa.spiffeIds, ['spiffe://a.example/opa', 'spiffe://b.example/opa']);
    assert.deepEqual(problemsOf('url: "https://opa.internal"'), []);
    assert.deepEqual(problemsOf('url: "unix:///run/opa.sock", spiffe_ids: []'), []);
  });

  it('needs https', () => {
    const message =
      'policy.opa.url: must be https://HOST:PORT, because policy.opa.spiffe_ids says who is there';
    for (const url of ['', 'url: "http://127.0.0.1:8181", ', 'url: "unix:///run/opa.sock", ']) {
      assert.deepEqual(problemsOf(`${url}spiffe_ids: ["spiffe://a.example/opa"]`), [message]);
    }
  });
});
