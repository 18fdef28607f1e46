import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { cli, directory, workloadApi } from './harness.ts';

type X509 = Readonly<{ svids: readonly Record<string, string>[] }>;

describe('fetch x509', () => {
  it('prints the SVIDs as JSON, in the order of the Workload API and without a key', async (t) => {
    const address = await workloadApi(t);
    const { code, stdout } = await cli(['fetch', 'x509'], { env: { SPIFFE_ENDPOINT_SOCKET: address } });
    assert.equal(code, 0);
    const { svids } = JSON.parse(stdout) as X509;
    assert.deepEqual(
      svids.map(({ spiffe_id }) => spiffe_id),
      ['spiffe://dev.local/web', 'spiffe://dev.local/api'],
    );
    const [first] = svids;
    assert.equal(first?.['trust_domain'], 'dev.local');
    assert.match(first['expires_at'] ?? '', /^\d{4}-.*Z$/);
    assert.match(
      new X509Certificate(first['certificate'] ?? '').subjectAltName ?? '',
      /spiffe:\/\/dev\.local\/web/,
    );
    assert.doesNotMatch(stdout, /PRIVATE/);
  });

  it('asks the Workload API whatever the environment says of the identity source', async (t) => {
    const address = await workloadApi(t);
    for (const variables of [{ TLS_MODE: 'file' }, { SVIDECAR_IDENTITY_SOURCE: 'files' }]) {
      const env = { SPIFFE_ENDPOINT_SOCKET: address, ...variables };
      const { code, stderr } = await cli(['fetch', 'x509'], { env });
      assert.equal(code, 0, stderr);
    }
  });

  it('prints them as PEM', async (t) => {
    const { stdout } = await cli([
      'fetch',
      'x509',
      '--workload-api',
      await workloadApi(t),
      '--output',
      'pem',
    ]);
    assert.equal(stdout.match(/-----BEGIN CERTIFICATE-----/g)?.length, 2);
    assert.doesNotMatch(stdout, /PRIVATE/);
  });

  it('writes keys for the owner only, each with its certificate', async (t) => {
    const out = join(await directory(t), 'new');
    const { code, stdout } = await cli([
      'fetch',
      'x509',
      '--workload-api',
      await workloadApi(t),
      '--write',
      out,
    ]);
    assert.equal(code, 0);
    const files = (await readdir(out)).sort();
    assert.deepEqual(files, ['bundle.dev.local.pem', 'svid.0.key', 'svid.0.pem', 'svid.1.key', 'svid.1.pem']);
    assert.deepEqual(
      stdout.trim().split('\n').sort(),
      files.map((name) => join(out, name)),
    );
    assert.equal((await stat(out)).mode & 0o777, 0o700);
    for (const i of [0, 1]) {
      const key = join(out, `svid.${i}.key`);
      assert.equal((await stat(key)).mode & 0o777, 0o600);
      const certificate = new X509Certificate(await readFile(join(out, `svid.${i}.pem`)));
      assert.ok(certificate.checkPrivateKey(createPrivateKey(await readFile(key))));
    }
  });

  it('says what is wrong when there is no Workload API', async () => {
    const { code, stdout, stderr } = await cli(['fetch', 'x509', '--workload-api', 'unix:///nowhere.sock']);
    assert.equal(code, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /^svidecar: workload api unix:\/\/\/nowhere\.sock does not exist/);
  });

  it('refuses an address that is none', async () => {
    const { code, stderr } = await cli(['fetch', 'x509', '--workload-api', 'unix://nowhere.sock']);
    assert.equal(code, 64);
    assert.match(stderr, /identity\.workload_api\.address: /);
  });
});

describe('fetch jwt', () => {
  it('prints JWT-SVIDs for the audiences, of one identity when it is named', async (t) => {
    const argv = [
      'fetch',
      'jwt',
      '--workload-api',
      await workloadApi(t),
      '--audience',
      'a',
      '--audience',
      'b',
    ];
    const { code, stdout } = await cli([...argv, '--spiffe-id', 'spiffe://dev.local/api']);
    assert.equal(code, 0);
    const { svids } = JSON.parse(stdout) as {
      svids: { spiffe_id: string; audience: string[]; claims: object; jwt: string }[];
    };
    assert.equal(svids.length, 1);
    assert.equal(svids[0]?.spiffe_id, 'spiffe://dev.local/api');
    assert.deepEqual(svids[0].audience, ['a', 'b']);
    assert.equal((svids[0].claims as { sub: string }).sub, 'spiffe://dev.local/api');
    assert.equal((JSON.parse((await cli(argv)).stdout) as { svids: unknown[] }).svids.length, 2);
  });

  it('writes tokens for the owner only', async (t) => {
    const out = await directory(t);
    const { stdout } = await cli([
      'fetch',
      'jwt',
      '--workload-api',
      await workloadApi(t),
      '--audience',
      'a',
      '--write',
      out,
    ]);
    assert.equal(stdout, `${join(out, 'jwt.0.token')}\n${join(out, 'jwt.1.token')}\n`);
    assert.equal((await stat(join(out, 'jwt.0.token'))).mode & 0o777, 0o600);
    assert.match(await readFile(join(out, 'jwt.0.token'), 'utf8'), /^[\w-]+\.[\w-]+\.[\w-]+$/);
  });

  it('refuses a SPIFFE ID that is none, and an identity that is not ours', async (t) => {
    const argv = ['fetch', 'jwt', '--workload-api', await workloadApi(t), '--audience', 'a', '--spiffe-id'];
    assert.equal((await cli([...argv, 'web'])).code, 64);
    assert.equal((await cli([...argv, 'spiffe://dev.local/other'])).code, 1);
  });
});

describe('fetch bundles', () => {
  it('prints X.509 and JWT authorities by trust domain', async (t) => {
    const address = await workloadApi(t);
    const { stdout } = await cli(['fetch', 'bundles', '--workload-api', address]);
    const { trust_domains: domains } = JSON.parse(stdout) as {
      trust_domains: Record<
        string,
        { x509_authorities: string[]; jwt_authorities: { kty: string; d?: string }[] }
      >;
    };
    assert.deepEqual(Object.keys(domains), ['dev.local']);
    assert.ok(new X509Certificate(domains['dev.local']?.x509_authorities[0] ?? '').ca);
    assert.equal(domains['dev.local']?.jwt_authorities[0]?.kty, 'EC');
    assert.equal(domains['dev.local'].jwt_authorities[0].d, undefined);
    const pem = await cli(['fetch', 'bundles', '--workload-api', address, '--output', 'pem']);
    assert.match(pem.stdout, /^# dev\.local\n-----BEGIN CERTIFICATE-----/);
  });

  it('writes a PEM file and a JWKS for each trust domain', async (t) => {
    const out = await directory(t);
    await cli(['fetch', 'bundles', '--workload-api', await workloadApi(t), '--write', out]);
    assert.deepEqual((await readdir(out)).sort(), ['bundle.dev.local.pem', 'jwks.dev.local.json']);
    const { keys } = JSON.parse(await readFile(join(out, 'jwks.dev.local.json'), 'utf8')) as {
      keys: unknown[];
    };
    assert.equal(keys.length, 1);
  });
});
