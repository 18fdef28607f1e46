import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

const files = 'files: {certificate: c.pem, private_key: k.pem, bundle: b.pem}';

function problemsOf(text: string, env: Readonly<Record<string, string>> = {}): readonly string[] {
  try {
    loadConfig({ text, env });
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

describe('rules for identity', () => {
  it('want the files when they are the source, and let them stand beside another one for TLS_MODE to choose', () => {
    assert.deepEqual(problemsOf(`identity: {source: files, ${files}}`), []);
    assert.deepEqual(problemsOf(`identity: {${files}}`), []);
    assert.deepEqual(problemsOf('identity: {source: files}'), [
      'identity.files: is required with identity.source: files (TLS_MODE=file): certificate, private_key and bundle',
    ]);
  });

  it('refuse whatever needs JWT-SVIDs with files, which have none, and nothing of it with a Workload API', () => {
    const text = `identity: {${files}}
sds: {jwt_audiences: [billing]}
ext_authz:
  inject_jwt_svid: [{match: {}, audience: billing}]
`;
    const message = 'needs an identity source that issues JWT-SVIDs, which identity.source: files does not';
    assert.deepEqual(problemsOf(text), []);
    assert.deepEqual(
      problemsOf(text, { TLS_MODE: 'file' }),
      ['sds.jwt_audiences', 'ext_authz.inject_jwt_svid'].map((path) => `${path}: ${message}`),
    );
  });
});
