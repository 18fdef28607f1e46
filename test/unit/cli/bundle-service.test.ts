import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type BundleServer, startBundleServer } from '../../support/bundle-server.ts';
import { fixtureBundle } from '../../support/bundles.ts';
import { cli, file, type Ran } from './harness.ts';

const online = ['--online', '--timeout', '5s'];

async function serving(t: TestContext): Promise<BundleServer> {
  const server = await startBundleServer(t);
  server.publish(await fixtureBundle('lab'), '"v1"');
  return server;
}

async function configFile(t: TestContext, bundle: object, path = 'lab/allow'): Promise<string> {
  return file(
    t,
    'config.yaml',
    JSON.stringify({
      identity: { source: 'dev' },
      policy: { engine: 'wasm', timeout: '5s', bundle },
      ext_authz: { path, input: 'agentweave' },
    }),
  );
}

async function validate(t: TestContext, bundle: object, ...flags: readonly string[]): Promise<Ran> {
  return cli(['validate', '--config', await configFile(t, bundle), ...flags]);
}

describe('validate with a bundle service', () => {
  it('asks the service only with --online, once, and tells which revision would be activated', async (t) => {
    const server = await serving(t);
    assert.equal((await validate(t, { url: server.url })).code, 0);
    assert.equal(server.requests().length, 0);
    const { code, stderr } = await validate(t, { url: server.url }, ...online);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^policy\.bundle\.url: revision lab-1 would be activated$/m);
    assert.deepEqual(
      server.requests().map(({ prefer, status }) => [prefer, status]),
      [['modes=snapshot', 200]],
    );
  });

  it('wants the key and the token, also without --online', async (t) => {
    const { code, stderr } = await validate(t, {
      url: 'https://bundles.example/b.tar.gz',
      auth: { bearer_file: await file(t, 'token', 'two words\n') },
      verification_key: 'none.pem',
    });
    assert.equal(code, 64);
    assert.match(stderr, /policy\.bundle\.verification_key: .*none\.pem does not exist/);
    assert.match(stderr, /policy\.bundle\.auth\.bearer_file: bearer token .* no bearer token has/);
    assert.doesNotMatch(stderr, /two words/);
  });

  it('shows the token, and exits 1 when the service refuses it', async (t) => {
    const server = await serving(t);
    server.requireToken('t0ken');
    const auth = async (token: string) => ({ bearer_file: await file(t, 'token', `${token}\n`) });
    const right = await validate(t, { url: server.url, auth: await auth('t0ken') }, ...online);
    assert.equal(right.code, 0, right.stderr);
    const wrong = await validate(t, { url: server.url, auth: await auth('wr0ng') }, ...online);
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /^policy\.bundle\.url: failed: answered with status 401, expected 200$/m);
    assert.doesNotMatch(wrong.stdout + wrong.stderr, /wr0ng/);
  });

  it('exits 1 for a bundle that would not be activated, or lacks a decision that Checks ask for', async (t) => {
    const server = await serving(t);
    const { url } = server;
    const config = await configFile(t, [{ name: 'a', url }], 'lab/alow');
    const lacking = await cli(['validate', '--config', config, ...online]);
    assert.equal(lacking.code, 1);
    assert.match(lacking.stderr, /^policy\.bundle\[0\]\.url: failed: has no entry point lab\/alow/m);
    server.publish(Buffer.from('<html>please log in</html>'), '"v2"');
    const broken = await validate(t, { url }, ...online);
    assert.equal(broken.code, 1);
    assert.match(broken.stderr, /^policy\.bundle\.url: failed: bundle is not a gzip file/m);
    await server.close();
    const away = await validate(t, { url }, ...online);
    assert.equal(away.code, 1);
    assert.match(away.stderr, /^policy\.bundle\.url: failed: GET .*ECONNREFUSED/m);
  });
});

describe('explain with a bundle service', () => {
  it('asks for the bundle once and judges by it', async (t) => {
    const server = await serving(t);
    const check = await file(
      t,
      'check.json',
      JSON.stringify({
        attributes: {
          source: { principal: 'spiffe://dev.local/service/web' },
          request: { http: { method: 'GET', path: '/', host: 'shop' } },
        },
      }),
    );
    const config = await configFile(t, { url: server.url });
    const { code, stdout, stderr } = await cli(['explain', '--config', config, check]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /"policy_denied"/);
    assert.equal(server.requests().length, 1);
    await server.close();
    const away = await cli(['explain', '--config', config, check]);
    assert.equal(away.code, 64);
    assert.match(away.stderr, /policy\.bundle\.url: GET .*ECONNREFUSED/);
  });
});
