import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ServerIdentityError, type ServerTrust } from '../../../src/http/server-trust.ts';
import { verifiedGet } from '../../../src/http/verified-get.ts';
import { AbortedError, UnavailableError } from '../../../src/runtime/errors.ts';
import type { X509BundleSet } from '../../../src/spiffe/bundle.ts';
import { encodeCertificatesPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority, testNow, trustIn } from '../../support/ca.ts';
import { type ShownIdentity, startHttpsServer } from '../../support/https-server.ts';

const domain = 'partner.example';
const id = parseSpiffeId('spiffe://partner.example/bundles');
const root = await createTestAuthority(domain);
const forever = new AbortController().signal;

function spiffe(bundles: X509BundleSet, now = testNow): ServerTrust {
  return { kind: 'spiffe', spiffeIds: [id], bundles: () => bundles, now: () => now };
}

async function get(t: TestContext, shown: ShownIdentity, trust: ServerTrust, tls = {}): Promise<string> {
  const { url, requests } = await startHttpsServer(t, shown, (_, response) => response.end('hello'), tls);
  const request = { url, trust, timeoutMs: 5_000, maxBytes: 100, maxRedirects: 0 };
  try {
    return (await verifiedGet(request, forever)).toString();
  } catch (error) {
    assert.equal(requests(), 0, 'nothing was sent to a server that is not trusted');
    throw error;
  }
}

function refused(message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ServerIdentityError, String(error));
    assert.match(error.message, message);
    return true;
  };
}

test('a server with exactly the expected SPIFFE ID is asked, also through an intermediate', async (t) => {
  assert.equal(await get(t, await root.svid(id), spiffe(trustIn(root))), 'hello');
  const intermediate = await root.intermediate();
  const svid = await intermediate.svid(id, { through: [intermediate] });
  assert.equal(await get(t, svid, spiffe(trustIn(root))), 'hello');
});

for (const [what, show, message] of [
  [
    'another SPIFFE ID of the domain',
    () => root.svid('spiffe://partner.example/web'),
    /is spiffe:\/\/partner\.example\/web, expected spiffe:\/\/partner\.example\/bundles/,
  ],
  [
    'another authority of that name',
    async () => (await createTestAuthority(domain)).svid(id),
    /untrusted_chain/,
  ],
  [
    'a trust domain that is not held',
    async () => (await createTestAuthority('other.example')).svid('spiffe://other.example/bundles'),
    /unknown_trust_domain/,
  ],
  [
    'no SPIFFE ID at all',
    async () => shownOf(await root.leaf({ uris: [], dnsNames: ['localhost'] })),
    /no_spiffe_id/,
  ],
  ['two URIs', async () => shownOf(await root.leaf({ uris: [id, `${id}2`] })), /multiple_uri_sans/],
  [
    'an expired certificate',
    async () => shownOf(await root.leaf({ uris: [id], notAfter: testNow - 1000 })),
    /expired/,
  ],
] as const) {
  test(`a server with ${what} is refused before a request is sent`, async (t) => {
    await assert.rejects(get(t, await show(), spiffe(trustIn(root))), refused(message));
  });
}

test('a domain that trusts nothing any more refuses its own server', async (t) => {
  const bundle = { trustDomain: trustIn(root).keys().next().value, authorities: [], crls: [] };
  assert.ok(bundle.trustDomain !== undefined);
  const emptied = new Map([[bundle.trustDomain, { ...bundle, trustDomain: bundle.trustDomain }]]);
  await assert.rejects(get(t, await root.svid(id), spiffe(emptied)), refused(/untrusted_chain/));
});

test('the SPIFFE profile wants TLS 1.3', async (t) => {
  const old = { maxVersion: 'TLSv1.2' };
  await assert.rejects(get(t, await root.svid(id), spiffe(trustIn(root)), old), UnavailableError);
});

test('by the Web PKI the host name and the private CA decide, with TLS 1.2 and up', async (t) => {
  const hour = 3_600_000;
  // OpenSSL looks at the real clock.
  const times = { notBefore: Date.now() - hour, notAfter: Date.now() + hour };
  const ca = await createTestAuthority('ca.example', { ...times, uris: [] });
  const other = await createTestAuthority('ca.example', { ...times, uris: [] });
  const trust = { kind: 'web', caPem: encodeCertificatesPem([ca.certificate]).toString() } as const;
  const leaf = await ca.leaf({ ...times, uris: [], dnsNames: ['localhost'] });
  const shown = shownOf(leaf);
  const at = async (host: string, tls = {}): Promise<string> => {
    const { url } = await startHttpsServer(t, shown, (_, response) => response.end('hello'), tls);
    const named = url.replace('127.0.0.1', host);
    return (
      await verifiedGet({ url: named, trust, timeoutMs: 5_000, maxBytes: 100, maxRedirects: 0 }, forever)
    ).toString();
  };
  assert.equal(await at('localhost'), 'hello');
  assert.equal(await at('localhost', { maxVersion: 'TLSv1.2' }), 'hello');
  await assert.rejects(at('127.0.0.1'), refused(/certificate is refused/));
  const stranger = await other.leaf({ ...times, uris: [], dnsNames: ['localhost'] });
  await assert.rejects(get(t, shownOf(stranger), trust), refused(/certificate is refused/));
  await assert.rejects(get(t, shown, { kind: 'web' }), refused(/certificate is refused/));
});

test('a server that never shakes hands holds nothing after the signal fires', async (t) => {
  const stop = new AbortController();
  const closed = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    socket.on('close', () => closed.resolve());
    socket.on('error', () => {});
    socket.resume();
    stop.abort();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const request = {
    url: `https://127.0.0.1:${address.port}`,
    trust: spiffe(trustIn(root)),
    timeoutMs: 5_000,
    maxBytes: 100,
    maxRedirects: 0,
  };
  await assert.rejects(verifiedGet(request, stop.signal), AbortedError);
  await closed.promise;
});

function shownOf({ certificate, privateKey }: Awaited<ReturnType<typeof root.leaf>>): ShownIdentity {
  return { chain: [certificate], privateKey };
}
