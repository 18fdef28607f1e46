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

describe('policy.opa.push', () => {
  it('names policies by id and documents by path; files count from the config', () => {
    const text = `policy: {opa: {push: [{data: acl/agents, file: acl.json}, {policy: a/b.rego, file: /etc/b.rego}]}}`;
    assert.deepEqual(loadConfig({ text, env: {}, path: '/etc/svidecar/c.yaml' }).config.policy.opa.push, [
      { kind: 'data', target: 'acl/agents', file: '/etc/svidecar/acl.json' },
      { kind: 'policy', target: 'a/b.rego', file: '/etc/b.rego' },
    ]);
  });

  it('each entry is one of the two, with a path that OPA can have, and no two write the same', () => {
    const fault = (entries: string): string => problemsOf(`push: [${entries}]`).join();
    const at = 'policy.opa.push[0]: ';
    assert.equal(fault('{file: a}'), `${at}needs either policy or data`);
    assert.equal(fault('{file: a, policy: a, data: a}'), `${at}needs either policy or data`);
    for (const path of ['/a', 'a/', 'a//b', 'a/../b', '.']) {
      assert.match(fault(`{file: a, data: "${path}"}`), /data must be segments between slashes/);
      assert.match(fault(`{file: a, policy: "${path}"}`), /policy must be segments between slashes/);
    }
    assert.match(fault('{file: a, data: svidecar/x}'), /data\.svidecar is taken by svidecar itself/);
    assert.match(
      fault('{file: a, data: a}, {file: b, data: a/b}'),
      /push\[1\]: overlaps policy\.opa\.push\[0\]/,
    );
    assert.match(fault('{file: a, policy: a}, {file: b, policy: a}'), /overlaps/);
    assert.equal(fault('{file: a, data: a}, {file: b, data: ab}, {file: c, policy: a}'), '');
  });
});

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
