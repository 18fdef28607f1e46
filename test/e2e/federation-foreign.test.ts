import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { FederationEntry } from '../../src/federation/federation-entry.ts';
import { type FetchedBundle, fetchBundle } from '../../src/federation/fetch-bundle.ts';
import { ServerIdentityError } from '../../src/http/server-trust.ts';
import type { X509BundleSet } from '../../src/spiffe/bundle.ts';
import { parseBundleDocument } from '../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/spiffe-id.ts';
import { createTestAuthority } from '../support/ca.ts';
import { goSpiffeClient } from '../support/foreign-clients.ts';
import { freePort } from '../support/ports.ts';
import { runProcess, startProcess, tempDirectory, until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { startTrustDomain } from '../support/trust-domain.ts';

const name = parseTrustDomain('partner.test');
const id = parseSpiffeId('spiffe://partner.test/bundles');

/** A trust domain, and what either side needs for either profile, as files. */
async function world(t: TestContext) {
  const domain = await startTrustDomain(t, name, [id]);
  const directory = await tempDirectory(t);
  const write = async (file: string, content: string | Buffer): Promise<string> => {
    const path = join(directory, file);
    await writeFile(path, content, { mode: 0o600 });
    return path;
  };
  const times = { notBefore: Date.now() - 60_000, notAfter: Date.now() + 3_600_000 };
  const ca = await createTestAuthority('web.ca', { ...times, uris: [] });
  const leaf = await ca.leaf({ ...times, uris: [], dnsNames: ['localhost'] });
  const caPem = encodeCertificatesPem([ca.certificate]).toString();
  return {
    domain,
    caPem,
    bundleFile: await write('bundle.json', domain.bundle()),
    caFile: await write('ca.pem', caPem),
    certificate: await write('tls.pem', encodeCertificatesPem([leaf.certificate])),
    private_key: await write('tls.key', encodePrivateKeyPem(leaf.privateKey)),
  };
}

test("go-spiffe's federation client fetches our bundle endpoint in both profiles", async (t) => {
  const { domain, caFile, bundleFile, certificate, private_key } = await world(t);
  const { command, args } = await goSpiffeClient(t);
  const ask = (...more: readonly string[]): Promise<{ code: number | undefined; output: string }> =>
    runProcess(t, { name: 'go-spiffe', command, args: [...args, 'fetch-bundle', name, ...more] });
  // Nothing is published before the JWT authorities have come, which is a moment after the X.509 ones.
  const untilServed = (attempt: () => ReturnType<typeof ask>): Promise<string> =>
    until('the bundle', async () => {
      const { code, output } = await attempt();
      return code === 0 ? output : undefined;
    });
  const expected = (keys: readonly string[]) => ({
    trust_domain: name,
    x509_authorities: 1,
    jwt_keys: keys,
    refresh_hint_s: 90,
    has_sequence: false,
  });
  const { jwt } = parseBundleDocument(domain.bundle(), name);
  const keys = jwt.authorities.map(({ keyId }) => keyId);

  const serve = async (profile: object): Promise<number> => {
    const port = await freePort();
    await startSidecar(t, {
      config: {
        identity: { workload_api: { address: domain.workloadApi } },
        ext_authz: { enabled: false },
        federation: { serve: { listen: `127.0.0.1:${port}`, refresh_hint: '90s', ...profile } },
      },
    });
    return port;
  };
  const web = await serve({ profile: 'https_web', certificate, private_key });
  const spiffe = await serve({});

  await t.test('https_web', async () => {
    const output = await untilServed(() => ask(`https://localhost:${web}`, 'https_web', caFile));
    assert.deepEqual(JSON.parse(output), expected(keys));
  });
  await t.test('https_spiffe, and no other SPIFFE ID', async () => {
    const url = `https://127.0.0.1:${spiffe}`;
    const output = await untilServed(() => ask(url, 'https_spiffe', id, bundleFile));
    assert.deepEqual(JSON.parse(output), expected(keys));
    const other = await ask(url, 'https_spiffe', `${id}2`, bundleFile);
    assert.equal(other.code, 1);
    assert.match(other.output, /unexpected ID "spiffe:\/\/partner\.test\/bundles"/);
  });
});

test('our client fetches an endpoint served by go-spiffe in both profiles', async (t) => {
  const { domain, caPem, certificate, private_key } = await world(t);
  const { command, args } = await goSpiffeClient(t);
  const serve = async (...profile: readonly string[]): Promise<number> => {
    const server = await startProcess(t, {
      name: `go-spiffe ${profile[0]}`,
      command,
      args: [...args, 'serve-bundle', domain.workloadApi, name, ...profile],
    });
    const { port } = JSON.parse(await server.waitForLine(/^\{/)) as { port: number };
    return port;
  };
  const document = parseBundleDocument(domain.bundle(), name);
  const bundles: X509BundleSet = new Map([[name, document.x509]]);
  const fetch = (url: string, profile: FederationEntry['profile']): Promise<FetchedBundle> =>
    fetchBundle(
      { trustDomain: name, url, profile, bootstrap: undefined },
      { bundles: () => bundles, now: Date.now },
      new AbortController().signal,
    );
  const assertSame = ({ document: { x509, jwt } }: FetchedBundle): void => {
    assert.deepEqual(
      x509.authorities.map(({ fingerprint }) => fingerprint),
      domain.authorities(),
    );
    assert.deepEqual(
      jwt.authorities.map(({ keyId }) => keyId),
      document.jwt.authorities.map(({ keyId }) => keyId),
    );
  };

  await t.test('https_web', async () => {
    const port = await serve('https_web', certificate, private_key);
    assertSame(await fetch(`https://localhost:${port}/`, { kind: 'https_web', caPem }));
    await assert.rejects(
      fetch(`https://localhost:${port}/`, { kind: 'https_web', caPem: undefined }),
      ServerIdentityError,
    );
  });
  await t.test('https_spiffe, and no other SPIFFE ID', async () => {
    const url = `https://127.0.0.1:${await serve('https_spiffe')}/`;
    assertSame(await fetch(url, { kind: 'https_spiffe', spiffeId: id }));
    const other = parseSpiffeId(`${id}2`);
    await assert.rejects(fetch(url, { kind: 'https_spiffe', spiffeId: other }), ServerIdentityError);
  });
});
