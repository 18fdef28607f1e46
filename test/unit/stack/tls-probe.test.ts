import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer, type TlsOptions } from 'node:tls';
import { createX509Authority } from '../../../src/spiffe/authority.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { probeTls } from '../../../src/stack/tls-probe.ts';

const now = Date.now();

async function issue(): Promise<{ ca: Buffer; cert: Buffer; key: Buffer; serial: string }> {
  const trustDomain = parseTrustDomain('dev.local');
  const authority = await createX509Authority({ trustDomain, ttlMs: 3_600_000, now });
  const svid = await authority.issue({
    spiffeId: parseSpiffeId('spiffe://dev.local/service/web'),
    ttlMs: 600_000,
    now,
  });
  return {
    ca: encodeCertificatesPem([authority.certificate]),
    cert: encodeCertificatesPem(svid.chain),
    key: encodePrivateKeyPem(svid.privateKey),
    serial: svid.chain[0].native.serialNumber,
  };
}

async function serve(t: TestContext, options: TlsOptions, answer: string): Promise<number> {
  const server = createServer({ minVersion: 'TLSv1.3', ...options }, (socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.end(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test('the probe tells protocol, serial and SPIFFE ID of the server, and the status of its answer', async (t) => {
  const { cert, key, serial } = await issue();
  const port = await serve(t, { cert, key }, 'HTTP/1.1 403 Forbidden\r\n\r\n');
  const probe = await probeTls({ port });
  assert.equal(probe.protocol, 'TLSv1.3');
  assert.equal(probe.serial?.toLowerCase(), serial.toLowerCase());
  assert.equal(probe.uri, 'spiffe://dev.local/service/web');
  assert.equal(probe.status, 403);
  assert.equal(probe.refusal, undefined);
});

test('a server that wants a certificate refuses a client without one, after showing its own', async (t) => {
  const { ca, cert, key } = await issue();
  const port = await serve(
    t,
    { cert, key, ca, requestCert: true, rejectUnauthorized: true },
    'HTTP/1.1 200 OK\r\n\r\n',
  );
  const probe = await probeTls({ port });
  assert.equal(probe.status, undefined);
  assert.notEqual(probe.serial, undefined);
  assert.match(probe.refusal ?? '', /certificate required/);
});

test('the probe shows the certificate it is given', async (t) => {
  const { ca, cert, key } = await issue();
  const port = await serve(
    t,
    { cert, key, ca, requestCert: true, rejectUnauthorized: true },
    'HTTP/1.1 200 OK\r\n\r\n',
  );
  const probe = await probeTls({ port, identity: { certificatePem: cert, privateKeyPem: key } });
  assert.equal(probe.status, 200);
});

test('a port on which nobody listens, a server that says nothing and one that speaks no HTTP are refusals', async (t) => {
  const { cert, key } = await issue();
  assert.match((await probeTls({ port: 1 })).refusal ?? '', /ECONNREFUSED/);
  const silent = await serve(t, { cert, key }, '');
  assert.equal((await probeTls({ port: silent })).refusal, 'connection closed without an answer');
  const other = await serve(t, { cert, key }, '#'.repeat(100));
  assert.equal((await probeTls({ port: other })).refusal, 'an answer that is not HTTP');
});
