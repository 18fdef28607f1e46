import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { TLSSocket } from 'node:tls';
import { createHttpClient } from '../../../src/http/client.ts';
import { ServerIdentityError } from '../../../src/http/server-trust.ts';
import { NoCredentialsError } from '../../../src/http/verified-pool.ts';
import { UnavailableError } from '../../../src/runtime/errors.ts';
import type { X509BundleSet } from '../../../src/spiffe/bundle.ts';
import { encodeCertificatesPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import type { TlsCredentials } from '../../../src/spiffe/tls-credentials.ts';
import { createTestAuthority, testNow, trustIn } from '../../support/ca.ts';
import { pemOf, type ShownIdentity, startHttpsServer } from '../../support/https-server.ts';
import { until } from '../../support/process.ts';

const root = await createTestAuthority('example.org');
const opa = parseSpiffeId('spiffe://example.org/opa');
const standby = parseSpiffeId('spiffe://example.org/opa-standby');
const ownId = 'spiffe://example.org/sidecar';
const forever = new AbortController().signal;

type Handle = (request: IncomingMessage, response: ServerResponse) => void;

/** A server that asks for a certificate, and a client whose identity and trust the test turns by hand. */
async function start(
  t: TestContext,
  options: Readonly<{ shown?: ShownIdentity; handle?: Handle; rejectUnauthorized?: boolean }> = {},
) {
  const shown = options.shown ?? (await root.svid(opa));
  const { server, url, requests } = await startHttpsServer(
    t,
    shown,
    options.handle ?? ((request, response) => response.end(clientOf(request))),
    {
      requestCert: true,
      rejectUnauthorized: options.rejectUnauthorized ?? false,
      minVersion: 'TLSv1.3',
      ca: encodeCertificatesPem([root.certificate]),
    },
  );
  const connections: Socket[] = [];
  server.on('secureConnection', (socket) => connections.push(socket));
  const state: { bundles: X509BundleSet; credentials: TlsCredentials | undefined; now: number } = {
    bundles: trustIn(root),
    credentials: credentialsOf(await root.svid(ownId)),
    now: testNow,
  };
  const http = createHttpClient({
    maxSockets: 8,
    trust: {
      kind: 'spiffe',
      spiffeIds: [opa, standby],
      bundles: () => state.bundles,
      credentials: () => state.credentials,
      now: () => state.now,
    },
  });
  t.after(() => http.close());
  const ask = async (): Promise<string> => {
    const request = { method: 'GET', url, path: '/', timeoutMs: 5_000, maxBytes: 1_000 } as const;
    return (await http.request(request, forever)).body.toString();
  };
  return { ask, state, connections, requests, server };
}

function credentialsOf(shown: ShownIdentity): TlsCredentials {
  const { cert, key } = pemOf(shown);
  return { certificatePem: cert, privateKeyPem: key };
}

/** The serial number of what the client of a request has shown. */
function clientOf({ socket }: IncomingMessage): string {
  return socket instanceof TLSSocket ? (socket.getPeerX509Certificate()?.serialNumber ?? 'nothing') : '';
}

test('each server of the list is asked, sees our X509-SVID, and the connection is used again', async (t) => {
  const own = await root.svid(ownId);
  for (const id of [opa, standby]) {
    const { ask, state, connections } = await start(t, { shown: await root.svid(id) });
    state.credentials = credentialsOf(own);
    for (let i = 0; i < 5; i++) assert.equal(await ask(), own.chain[0].native.serialNumber);
    assert.equal(connections.length, 1);
  }
});

test('a server that is not in the list, or of another authority, is sent nothing', async (t) => {
  const impostor = await createTestAuthority('example.org');
  for (const [shown, message] of [
    [
      await root.svid('spiffe://example.org/web'),
      /is spiffe:\/\/example\.org\/web, expected .*opa or .*opa-sta/,
    ],
    [await impostor.svid(opa), /untrusted_chain/],
    [await (await createTestAuthority('other.example')).svid('spiffe://other.example/opa'), /unknown_trust/],
  ] as const) {
    const { ask, requests } = await start(t, { shown });
    await assert.rejects(ask(), (error: unknown) => {
      assert.ok(error instanceof ServerIdentityError, String(error));
      assert.match(error.message, message);
      return true;
    });
    assert.equal(requests(), 0);
  }
});

test('without an X509-SVID of our own nobody is asked, and with one they are', async (t) => {
  const { ask, state, connections } = await start(t);
  const { credentials } = state;
  state.credentials = undefined;
  await assert.rejects(ask(), (error: unknown) => {
    assert.ok(error instanceof NoCredentialsError);
    assert.match(error.message, /no valid X509-SVID to show/);
    return true;
  });
  assert.equal(connections.length, 0);
  state.credentials = credentials;
  await ask();
});

test('a server that does not accept our certificate is unavailable', async (t) => {
  const { ask, state } = await start(t, { rejectUnauthorized: true });
  const stranger = await createTestAuthority('other.example');
  state.credentials = credentialsOf(await stranger.svid('spiffe://other.example/sidecar'));
  await assert.rejects(ask(), UnavailableError);
});

test('after a rotation the new X509-SVID is shown on a new connection, and the old one ends', async (t) => {
  const { ask, state, connections } = await start(t);
  await ask();
  const next = await root.svid(ownId);
  state.credentials = credentialsOf(next);
  assert.equal(await ask(), next.chain[0].native.serialNumber);
  assert.equal(connections.length, 2);
  await until('the end of the old connection', () => Promise.resolve(connections[0]?.destroyed || undefined));
});

test('a kept connection to a server whose authority is trusted no more is not used again', async (t) => {
  const { ask, state, connections, requests } = await start(t);
  await ask();
  state.bundles = trustIn(await createTestAuthority('example.org'));
  await assert.rejects(ask(), ServerIdentityError);
  assert.equal(requests(), 1);
  state.bundles = trustIn(root);
  await ask();
  assert.ok(connections.length > 1, 'the first connection has not come back');
});

test('an exchange under way at a change is finished, and its connection ends', async (t) => {
  const waiting: ServerResponse[] = [];
  const { ask, state, connections } = await start(t, {
    handle: (_, response) => void waiting.push(response),
  });
  const under = [ask(), ask()];
  await until('both requests', () => Promise.resolve(waiting.length === 2 || undefined));
  state.credentials = credentialsOf(await root.svid(ownId));
  const after = ask();
  await until('the third request', () => Promise.resolve(waiting.length === 3 || undefined));
  waiting[0]?.end('first');
  assert.equal(await under[0], 'first');
  assert.equal(connections[1]?.destroyed, false);
  waiting[1]?.end('second');
  waiting[2]?.end('third');
  assert.equal(await under[1], 'second');
  assert.equal(await after, 'third');
  await until('the end of the old connections', () =>
    Promise.resolve(connections.slice(0, 2).every(({ destroyed }) => destroyed) || undefined),
  );
  assert.equal(connections[2]?.destroyed, false);
});

test('a connection is not kept beyond the end of what its server has proved', async (t) => {
  const leaf = await root.leaf({ uris: [opa], notAfter: testNow + 60_000 });
  const shown = { chain: [leaf.certificate], privateKey: leaf.privateKey };
  const { ask, state, connections, requests } = await start(t, { shown });
  await ask();
  await ask();
  assert.equal(connections.length, 1);
  state.now = testNow + 59_000;
  await ask();
  await ask();
  assert.equal(connections.length, 2);
  state.now = testNow + 61_000;
  await assert.rejects(ask(), ServerIdentityError);
  assert.equal(requests(), 4);
});

test('a server that is restarted is found again', async (t) => {
  const { ask, connections } = await start(t);
  await ask();
  for (const socket of connections) socket.destroy();
  await until('an answer', () => ask().catch(() => undefined));
});
