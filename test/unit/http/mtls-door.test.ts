import assert from 'node:assert/strict';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect } from 'node:tls';
import { createMtlsDoor } from '../../../src/http/mtls-door.ts';
import type { X509BundleSet } from '../../../src/spiffe/bundle.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority, testNow, trustIn } from '../../support/ca.ts';
import { pemOf, type ShownIdentity } from '../../support/https-server.ts';
import { until } from '../../support/process.ts';

const domain = 'example.org';
const id = parseSpiffeId('spiffe://example.org/envoy');
const foreignId = parseSpiffeId('spiffe://partner.example/envoy');
const root = await createTestAuthority(domain);
const own = await root.svid('spiffe://example.org/sidecar');

/** A door that greets whoever gets through it. */
async function startDoor(t: TestContext) {
  const trust: { bundles: X509BundleSet } = { bundles: trustIn(root) };
  const shown: ShownIdentity[] = [own];
  let wake: (() => void) | undefined;
  const clock = { now: testNow };
  const door = createMtlsDoor({
    async *credentials(signal) {
      while (!signal.aborted) {
        const next = shown.shift();
        if (next !== undefined) {
          yield {
            certificatePem: encodeCertificatesPem(next.chain),
            privateKeyPem: encodePrivateKeyPem(next.privateKey),
          };
        } else await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    clientIds: [id, foreignId],
    trust: () => ({ trustDomain: parseTrustDomain(domain), bundles: trust.bundles }),
    now: () => clock.now,
    log: { debug() {}, info() {}, warn() {}, error() {} },
  });
  door.open((secure) => void secure.write('hello'));
  const server = createServer((socket) => {
    socket.on('error', () => {});
    t.after(() => socket.destroy());
    door.admit(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = new AbortController();
  const running = door.run(stop.signal);
  t.after(async () => {
    stop.abort();
    wake?.();
    await running;
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    door,
    trust,
    clock,
    port,
    rotate: (next: ShownIdentity): void => {
      shown.push(next);
      wake?.();
    },
  };
}

function knock(
  t: TestContext,
  port: number,
  identity: ShownIdentity | undefined,
  more: ConnectionOptions = {},
) {
  const socket = connect({
    port,
    host: '127.0.0.1',
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    ...(identity === undefined ? {} : pemOf(identity)),
    ...more,
  });
  t.after(() => socket.destroy());
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const greeted = new Promise<boolean>((resolve) => {
    socket.once('data', () => resolve(true));
    socket.on('error', () => resolve(false));
    void closed.then(() => resolve(false));
  });
  return { socket, greeted, closed };
}

test('a client with one of the SPIFFE IDs gets in', async (t) => {
  const { port } = await startDoor(t);
  assert.equal(await knock(t, port, await root.svid(id)).greeted, true);
});

test('an ID that is not listed, of another trust domain or of another authority stays outside', async (t) => {
  const { port, trust } = await startDoor(t);
  const partner = await createTestAuthority('partner.example');
  trust.bundles = new Map([...trustIn(root), ...trustIn(partner)]);
  const impostor = await createTestAuthority(domain);
  for (const identity of [
    await root.svid('spiffe://example.org/other'),
    await partner.svid(foreignId),
    await impostor.svid(id),
    undefined,
  ]) {
    assert.equal(await knock(t, port, identity).greeted, false);
  }
});

test('TLS 1.2, and a client that does not speak HTTP/2, stay outside', async (t) => {
  const { port } = await startDoor(t);
  const svid = await root.svid(id);
  assert.equal(await knock(t, port, svid, { maxVersion: 'TLSv1.2' }).greeted, false);
  assert.equal(await knock(t, port, svid, { ALPNProtocols: [] }).greeted, false);
});

test('an expired SVID stays outside; one that expires while connected stays in', async (t) => {
  const { door, port, clock } = await startDoor(t);
  const svid = await root.svid(id);
  const { socket, greeted } = knock(t, port, svid);
  assert.equal(await greeted, true);
  clock.now += 365 * 24 * 3_600_000;
  door.recheck();
  assert.equal(await knock(t, port, svid).greeted, false);
  assert.equal(socket.destroyed, false);
});

test('a client whose authority is trusted no more is cut off', async (t) => {
  const { door, port, trust } = await startDoor(t);
  const { greeted, closed } = knock(t, port, await root.svid(id));
  assert.equal(await greeted, true);
  trust.bundles = new Map();
  door.recheck();
  await closed;
});

test('a new certificate is shown to new connections, and open ones go on', async (t) => {
  const { port, rotate } = await startDoor(t);
  const svid = await root.svid(id);
  const before = knock(t, port, svid);
  assert.equal(await before.greeted, true);
  const next = await root.svid('spiffe://example.org/sidecar');
  rotate(next);
  await until('the new certificate', async () => {
    const { socket, greeted } = knock(t, port, svid);
    assert.equal(await greeted, true);
    const leaf = next.chain[0];
    return socket.getPeerX509Certificate()?.raw.equals(leaf?.der ?? Buffer.alloc(0)) ? true : undefined;
  });
  assert.equal(before.socket.destroyed, false);
});

test('strangers who connect and say nothing make room for one another, and for clients', async (t) => {
  const { port } = await startDoor(t);
  const client = knock(t, port, await root.svid(id));
  assert.equal(await client.greeted, true);
  const silent = Array.from({ length: 130 }, () => connectTcp({ port, host: '127.0.0.1' }));
  t.after(() => silent.forEach((socket) => void socket.destroy()));
  let closed = 0;
  for (const socket of silent) {
    socket.on('error', () => {});
    socket.once('close', () => (closed += 1));
    // Without a reader a socket never sees its end.
    socket.resume();
  }
  await until('two to give way', () => Promise.resolve(closed === 2 || undefined));
  assert.equal(await knock(t, port, await root.svid(id)).greeted, true);
  await until('one more to give way', () => Promise.resolve(closed === 3 || undefined));
  assert.equal(client.socket.destroyed, false);
});
