import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { createX509Authority } from '../../../src/spiffe/authority.ts';
import { formatBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { startHttpsServer } from '../../support/https-server.ts';
import { cli, directory, file, httpServer, workloadApi } from './harness.ts';

const bundle = join(import.meta.dirname, '../../fixtures/policy/lab.tar.gz');

describe('validate', () => {
  it('prints the effective config, which loads to the same one', async (t) => {
    const config = await file(t, 'config.yaml', 'identity: {source: dev}\npolicy: {timeout: 1500ms}\n');
    const { code, stdout, stderr } = await cli(['validate', '--config', config], {
      env: { SVIDECAR_LOG_LEVEL: 'debug', SVIDECAR_PORT: '80' },
    });
    assert.equal(code, 0);
    assert.equal(stderr, 'warning: SVIDECAR_PORT names no option\n');
    const { config: again } = loadConfig({ text: stdout, env: {} });
    assert.equal(again.policy.timeoutMs, 1500);
    assert.equal(again.log.level, 'debug');
    assert.equal(again.identity.source, 'dev');
  });

  it('reads the bundle beside the config, and wants every decision in it', async (t) => {
    const folder = await directory(t);
    const config = join(folder, 'config.yaml');
    const text = (path: string): string =>
      `policy: {engine: wasm, bundle: {file: policy.tar.gz}}\next_authz: {path: ${path}}\n`;
    await writeFile(config, text('lab/allow'));
    const missing = await cli(['validate', '--config', config]);
    assert.equal(missing.code, 64);
    assert.match(missing.stderr, /policy\.bundle\.file: .*policy\.tar\.gz does not exist/);

    await copyFile(bundle, join(folder, 'policy.tar.gz'));
    assert.equal((await cli(['validate', '--config', config])).code, 0);

    await writeFile(config, text('lab/alow'));
    const wrong = await cli(['validate', '--config', config]);
    assert.equal(wrong.code, 64);
    assert.match(wrong.stderr, /has no entry point lab\/alow, which ext_authz asks for; it has .*lab\/allow/);

    await writeFile(join(folder, 'policy.tar.gz'), 'no bundle');
    const broken = await cli(['validate', '--config', config]);
    assert.equal(broken.code, 64);
    assert.match(broken.stderr, /policy\.bundle\.file: /);
  });

  it('reads the files to push, without pushing any', async (t) => {
    const folder = await directory(t);
    const config = join(folder, 'config.yaml');
    const requests: string[] = [];
    const url = await httpServer(t, (request, response) => {
      requests.push(`${request.method} ${request.url}`);
      response.end('{}');
    });
    const push = '[{policy: authz.rego, file: authz.rego}, {data: acl, file: acl.json}]';
    await writeFile(config, `identity: {source: dev}\npolicy: {opa: {url: "${url}", push: ${push}}}\n`);
    await writeFile(join(folder, 'acl.json'), '{');
    const wrong = await cli(['validate', '--config', config]);
    assert.equal(wrong.code, 64);
    assert.match(wrong.stderr, /policy\.opa\.push\[0\]\.file: there is no file .*authz\.rego/);
    assert.match(wrong.stderr, /policy\.opa\.push\[1\]\.file: .*acl\.json is not JSON/);
    await writeFile(join(folder, 'acl.json'), '{}');
    await writeFile(join(folder, 'authz.rego'), 'package a');
    assert.equal((await cli(['validate', '--online', '--config', config])).code, 0);
    assert.deepEqual(requests, ['GET /health']);
  });

  it('reads the identity files, and tells of every one that is wrong beside the other problems', async (t) => {
    const folder = await directory(t);
    const config = join(folder, 'config.yaml');
    const files = '{certificate: svid.pem, private_key: svid.key, bundle: bundle.pem}';
    await writeFile(
      config,
      `identity: {files: ${files}}\npolicy: {engine: wasm, bundle: {file: policy.tar.gz}}\next_authz: {path: lab/allow}\n`,
    );
    const env = { TLS_MODE: 'file' };
    const ca = await createX509Authority({
      trustDomain: parseTrustDomain('files.example'),
      ttlMs: 3_600_000,
      now: Date.now(),
    });
    const id = parseSpiffeId('spiffe://files.example/web');
    const { chain, privateKey } = await ca.issue({ spiffeId: id, ttlMs: 3_600_000, now: Date.now() });
    await writeFile(join(folder, 'svid.pem'), encodeCertificatesPem(chain));
    const wrong = await cli(['validate', '--config', config], { env });
    assert.equal(wrong.code, 64);
    assert.match(
      wrong.stderr,
      /identity\.files\.private_key: .*svid\.key does not exist: put the file there/,
    );
    assert.match(wrong.stderr, /identity\.files\.bundle: .*bundle\.pem does not exist/);
    assert.match(wrong.stderr, /policy\.bundle\.file: /);

    await writeFile(join(folder, 'svid.key'), encodePrivateKeyPem(privateKey), { mode: 0o644 });
    await writeFile(join(folder, 'bundle.pem'), encodeCertificatesPem([ca.certificate]));
    await copyFile(bundle, join(folder, 'policy.tar.gz'));
    const right = await cli(['validate', '--config', config, '--online'], { env });
    assert.equal(right.code, 0, right.stderr);
    assert.match(right.stderr, /^warning: .*svid\.key may be read by every user/m);
    assert.match(right.stderr, /^identity: spiffe:\/\/files\.example\/web$/m);
    assert.equal((await cli(['validate', '--config', config], { env: { TLS_MODE: 'none' } })).code, 64);
  });

  it('tries identity source and OPA only when asked to', async (t) => {
    const opa = await httpServer(t, (request, response) => {
      response.statusCode = request.url === '/health' ? 200 : 404;
      response.end('{}');
    });
    const config = await file(
      t,
      'config.yaml',
      `identity: {workload_api: {address: "${await workloadApi(t)}"}}\npolicy: {opa: {url: "${opa}"}}\n`,
    );
    const { code, stderr } = await cli(['validate', '--config', config, '--online']);
    assert.equal(code, 0);
    assert.match(stderr, /^identity: spiffe:\/\/dev\.local\/web, spiffe:\/\/dev\.local\/api$/m);
    assert.match(stderr, /^policy: OPA at .* is healthy$/m);
  });

  it('exits 1 when what it tries is not there or is of another trust domain', async (t) => {
    const address = await workloadApi(t);
    const text = (domain: string): string =>
      `trust_domain: ${domain}\nidentity: {workload_api: {address: "${address}"}}\npolicy: {opa: {url: "unix:///nowhere"}}\n`;
    const argv = ['--online', '--timeout', '1s'];
    const config = await file(t, 'config.yaml', text('other.example'));
    assert.equal((await cli(['validate', '--config', config])).code, 0);
    const { code, stderr } = await cli(['validate', '--config', config, ...argv]);
    assert.equal(code, 1);
    assert.match(stderr, /^identity: failed: .*expected other\.example, got dev\.local/m);
    assert.match(stderr, /^policy: failed: /m);

    const nobody = await file(t, 'config.yaml', 'identity: {workload_api: {address: "unix:///nowhere"}}\n');
    const absent = await cli(['validate', '--config', nobody, ...argv]);
    assert.equal(absent.code, 1);
    assert.match(absent.stderr, /^identity: failed: .*does not exist/m);
  });
});

describe('validate with federation', () => {
  const partner = parseTrustDomain('partner.example');
  const id = parseSpiffeId('spiffe://partner.example/bundles');

  async function world(t: TestContext) {
    const now = Date.now();
    const ca = await createX509Authority({ trustDomain: partner, ttlMs: 3_600_000, now });
    const svid = await ca.issue({ spiffeId: id, ttlMs: 3_600_000, now });
    const x509 = { trustDomain: partner, authorities: [ca.certificate], crls: [] };
    const jwt = { trustDomain: partner, authorities: [] };
    const bundle = formatBundleDocument({ x509, jwt, sequence: 7n });
    const endpoint = await startHttpsServer(t, svid, (_, response) => response.end(bundle));
    const bootstrap = await file(t, 'partner.json', bundle);
    const config = (bootstrapFile: string, endpointId: string = id): string =>
      JSON.stringify({
        identity: { source: 'dev' },
        ext_authz: { enabled: false },
        federation: {
          trust_domains: [
            {
              name: partner,
              bundle_endpoint: endpoint.url,
              profile: 'https_spiffe',
              endpoint_spiffe_id: endpointId,
              bootstrap_bundle: bootstrapFile,
            },
          ],
        },
      });
    return { endpoint, bootstrap, config };
  }

  it('--online tries every bundle endpoint as it would be asked, and tells what is wrong', async (t) => {
    const { config, bootstrap } = await world(t);
    const good = await cli(['validate', '--online', '--config', await file(t, 'a.yaml', config(bootstrap))]);
    assert.match(
      good.stderr,
      /^federation with partner\.example: 1 X\.509 and 0 JWT authorities, sequence 7$/m,
    );
    assert.equal(good.code, 0);
    const other = config(bootstrap, 'spiffe://partner.example/other');
    const bad = await cli(['validate', '--online', '--config', await file(t, 'b.yaml', other)]);
    assert.match(bad.stderr, /^federation with partner\.example: failed: .*expected spiffe:/m);
    assert.equal(bad.code, 1);
  });

  it('reads the files that entries name, and does not go online unasked', async (t) => {
    const { config, bootstrap, endpoint } = await world(t);
    assert.equal((await cli(['validate', '--config', await file(t, 'a.yaml', config(bootstrap))])).code, 0);
    assert.equal(endpoint.requests(), 0);
    for (const [text, says] of [
      [undefined, /there is no file/],
      ['garbage', /is not JSON/],
      ['{"keys":[]}', /holds no X\.509 authority/],
    ] as const) {
      const name = text === undefined ? '/nonexistent/partner.json' : await file(t, 'partner.json', text);
      const { code, stderr } = await cli(['validate', '--config', await file(t, 'c.yaml', config(name))]);
      assert.equal(code, 64);
      assert.match(stderr, /federation\.trust_domains\[0\]\.bootstrap_bundle: /);
      assert.match(stderr, says);
    }
  });
});
