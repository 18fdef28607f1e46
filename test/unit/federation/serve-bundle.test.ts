import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from 'node:tls';
import { createBundleServer, ownBundle } from '../../../src/federation/serve-bundle.ts';
import { fileCredentials, readCredentials } from '../../../src/federation/server-credentials.ts';
import { sleep } from '../../../src/runtime/abort.ts';
import { AppError, UnavailableError } from '../../../src/runtime/errors.ts';
import { type Logger, silentLogger } from '../../../src/runtime/log.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { parseBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import type { CredentialSource } from '../../../src/spiffe/tls-credentials.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { usableDefaultSvid } from '../../../src/trust/snapshot.ts';
import { createTrustStore } from '../../../src/trust/store.ts';
import { svidCredentials } from '../../../src/trust/svid-credentials.ts';
import { createTestAuthority, testNow, x509Bundle, x509Bundles } from '../../support/ca.ts';
import { pemOf } from '../../support/https-server.ts';
import { tempDirectory, until } from '../../support/process.ts';

const own = parseTrustDomain('own.example');
const root = await createTestAuthority(own);
const { authority: jwtKey } = await createJwtSigner();

function createStore() {
  const store = createTrustStore({
    now: () => testNow,
    log: silentLogger,
    meter: { applied() {}, rotated() {} },
  });
  const hold = (svid: X509Svid): void => {
    store.apply({ kind: 'x509', context: { svids: [svid], bundles: x509Bundles(x509Bundle(own, [root])) } });
    const bundle = { trustDomain: own, authorities: [jwtKey] };
    store.apply({ kind: 'jwt_bundles', bundles: new Map([[own, bundle]]) });
  };
  return { store, hold };
}

async function start(
  t: TestContext,
  { store }: ReturnType<typeof createStore>,
  more: { credentials?: CredentialSource; profile?: 'https_spiffe' | 'https_web' } = {},
) {
  const served: number[] = [];
  const server = createBundleServer({
    listen: { host: '127.0.0.1', port: 0 },
    profile: more.profile ?? 'https_spiffe',
    credentials:
      more.credentials ??
      svidCredentials(store, (snapshot) => usableDefaultSvid(snapshot, undefined, testNow)),
    document: () => ownBundle(store.current(), 42),
    log: silentLogger,
    meter: { served: (status) => served.push(status) },
  });
  const { port } = await server.listen();
  const stop = new AbortController();
  const running = server.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
    await server.close();
  });
  return { port, served };
}

type Answer = Readonly<{
  status: number;
  headers: NodeJS.Dict<string | string[]>;
  body: string;
  serial: string;
  protocol: string;
}>;

function ask(port: number, path = '/', method = 'GET', tls = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', port, path, method, rejectUnauthorized: false, agent: false, ...tls },
      (response) => {
        const socket = response.socket as ReturnType<typeof connect>;
        const serial = socket.getPeerX509Certificate()?.serialNumber.toLowerCase() ?? '';
        const protocol = socket.getProtocol() ?? '';
        let body = '';
        response.on('data', (part: Buffer) => (body += part.toString()));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body, serial, protocol }),
        );
      },
    );
    asked.on('error', reject);
    asked.end();
  });
}

test('it serves the own bundle at / as JSON, with keys that have a use, a refresh hint, and no sequence', async (t) => {
  const world = createStore();
  world.hold(await root.svid('spiffe://own.example/sidecar'));
  const { port } = await start(t, world);
  const { status, headers, body, protocol } = await until('the certificate', () => ask(port));
  assert.equal(status, 200);
  assert.equal(protocol, 'TLSv1.3');
  assert.equal(headers['content-type'], 'application/json');
  const document = parseBundleDocument(body, own);
  assert.deepEqual(
    document.x509.authorities.map(({ fingerprint }) => fingerprint),
    [root.certificate.fingerprint],
  );
  assert.deepEqual(
    document.jwt.authorities.map(({ keyId }) => keyId),
    [jwtKey.keyId],
  );
  assert.equal(document.refreshHintS, 42);
  assert.equal(document.sequence, undefined);
  const raw = JSON.parse(body) as { keys: { use: string; kid?: string }[] };
  assert.deepEqual(
    raw.keys.map(({ use, kid }) => [use, kid]),
    [
      ['x509-svid', undefined],
      ['jwt-svid', jwtKey.keyId],
    ],
  );
});

test('it serves the sequence of the source when that has one', async (t) => {
  const world = createStore();
  const svid = await root.svid('spiffe://own.example/sidecar');
  for (const sequence of [2n ** 63n, 2n ** 63n + 1n]) {
    const bundles = x509Bundles({ ...x509Bundle(own, [root]), sequence });
    assert.equal(world.store.apply({ kind: 'x509', context: { svids: [svid], bundles } }), 'changed');
    const { port } = await start(t, world);
    const { body } = await until('the certificate', () => ask(port));
    assert.equal(parseBundleDocument(body, own).sequence, sequence);
  }
});

test('HEAD has no body, other methods are 405, other paths 404, and each is counted', async (t) => {
  const world = createStore();
  world.hold(await root.svid('spiffe://own.example/sidecar'));
  const { port, served } = await start(t, world);
  const get = await until('the certificate', () => ask(port, '/?a=b'));
  const head = await ask(port, '/', 'HEAD');
  assert.deepEqual([head.status, head.body], [200, '']);
  assert.equal(head.headers['content-length'], String(Buffer.byteLength(get.body)));
  const post = await ask(port, '/', 'POST');
  assert.deepEqual([post.status, post.headers['allow']], [405, 'GET, HEAD']);
  for (const path of ['/bundle', '//', '/../', '/index.json'])
    assert.equal((await ask(port, path)).status, 404, path);
  assert.deepEqual(served, [200, 200, 405, 404, 404, 404, 404]);
});

test('before there is an identity nobody gets a handshake, and the socket is bound already', async (t) => {
  const world = createStore();
  const { port } = await start(t, world);
  await assert.rejects(ask(port));
  world.hold(await root.svid('spiffe://own.example/sidecar'));
  assert.equal((await until('the certificate', () => ask(port))).status, 200);
});

test('an identity that is withdrawn leaves no bundle to publish', async (t) => {
  const world = createStore();
  world.hold(await root.svid('spiffe://own.example/sidecar'));
  const { port } = await start(t, world);
  await until('the certificate', () => ask(port));
  world.store.apply({ kind: 'x509_revoked' });
  assert.equal((await ask(port)).status, 503);
});

test('a rotation shows the new certificate on the same port, and connections that are open go on', async (t) => {
  const world = createStore();
  const [before, after] = [
    await root.svid('spiffe://own.example/sidecar'),
    await root.svid('spiffe://own.example/sidecar'),
  ];
  world.hold(before);
  const { port } = await start(t, world);
  assert.equal((await until('the certificate', () => ask(port))).serial, before.chain[0].serial);
  const open = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
  await new Promise((resolve) => open.once('secureConnect', resolve));
  world.hold(after);
  await until('the new serial', async () =>
    (await ask(port)).serial === after.chain[0].serial ? true : undefined,
  );
  const answered = new Promise<string>((resolve) =>
    open.once('data', (part: Buffer) => resolve(part.toString())),
  );
  open.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  assert.match(await answered, /^HTTP\/1\.1 200/);
  open.destroy();
});

test('https_spiffe refuses TLS 1.2, https_web speaks it', async (t) => {
  const world = createStore();
  const svid = await root.svid('spiffe://own.example/sidecar');
  world.hold(svid);
  const old = { maxVersion: 'TLSv1.2' };
  const spiffe = await start(t, world);
  await until('the certificate', () => ask(spiffe.port));
  await assert.rejects(ask(spiffe.port, '/', 'GET', old), /protocol version/);
  const web = await start(t, world, { profile: 'https_web' });
  await until('the certificate', () => ask(web.port));
  assert.equal((await ask(web.port, '/', 'GET', old)).protocol, 'TLSv1.2');
});

test('plain HTTP and garbage get no answer and harm nobody', async (t) => {
  const world = createStore();
  world.hold(await root.svid('spiffe://own.example/sidecar'));
  const { port } = await start(t, world);
  await until('the certificate', () => ask(port));
  for (const text of ['GET / HTTP/1.1\r\nhost: x\r\n\r\n', '\0'.repeat(1000)]) {
    const socket = connectTcp(port, '127.0.0.1');
    let answer = '';
    socket.on('data', (part: Buffer) => (answer += part.toString('latin1')));
    socket.on('error', () => {});
    socket.write(text);
    await new Promise((resolve) => socket.once('close', resolve));
    assert.doesNotMatch(answer, /HTTP/);
  }
  assert.equal((await ask(port)).status, 200);
});

test('a port that is taken is told with the key that names it', async (t) => {
  const world = createStore();
  const { port } = await start(t, world);
  const second = createBundleServer({
    listen: { host: '127.0.0.1', port },
    profile: 'https_spiffe',
    credentials: svidCredentials(world.store, () => undefined),
    document: () => undefined,
    log: silentLogger,
    meter: { served() {} },
  });
  await assert.rejects(second.listen(), (error) => {
    return error instanceof UnavailableError && /taken.*federation\.serve\.listen/.test(error.message);
  });
});

test('certificate and key from files are shown, and replaced when both have changed', async (t) => {
  const world = createStore();
  world.hold(await root.svid('spiffe://own.example/sidecar'));
  const [before, after] = [
    await root.svid('spiffe://own.example/a'),
    await root.svid('spiffe://own.example/b'),
  ];
  const directory = await tempDirectory(t);
  const files = { certificate: join(directory, 'tls.pem'), privateKey: join(directory, 'tls.key') };
  const put = async (certificate: X509Svid, key: X509Svid): Promise<void> => {
    await writeFile(`${files.certificate}.new`, pemOf(certificate).cert);
    await writeFile(`${files.privateKey}.new`, pemOf(key).key);
    await rename(`${files.privateKey}.new`, files.privateKey);
    await rename(`${files.certificate}.new`, files.certificate);
  };
  await put(before, before);
  const warnings: string[] = [];
  const log: Logger = { ...silentLogger, warn: (fields) => warnings.push(String(fields['error'])) };
  const quick = (_: number, signal: AbortSignal): Promise<void> => sleep(5, signal);
  const credentials = fileCredentials(files, { sleep: quick, log });
  const { port } = await start(t, world, { credentials, profile: 'https_web' });
  assert.equal((await until('the certificate', () => ask(port))).serial, before.chain[0].serial);
  await put(before, after);
  await until('the warning', () => warnings[0]);
  assert.match(warnings[0] ?? '', /the key in .* is not that of/);
  assert.equal((await ask(port)).serial, before.chain[0].serial);
  await put(after, after);
  await until('the new serial', async () =>
    (await ask(port)).serial === after.chain[0].serial ? true : undefined,
  );
});

test('files that are no pair are refused with what is wrong, and never with the key', async (t) => {
  const directory = await tempDirectory(t);
  const files = { certificate: join(directory, 'tls.pem'), privateKey: join(directory, 'tls.key') };
  await assert.rejects(readCredentials(files), /there is no file .*tls\.pem/);
  const svid = await root.svid('spiffe://own.example/a');
  await writeFile(files.certificate, pemOf(svid).cert);
  await writeFile(files.privateKey, 'secret stuff');
  await assert.rejects(readCredentials(files), (error) => {
    assert.ok(error instanceof AppError);
    assert.match(error.message, /are not a certificate and an unencrypted private key in PEM/);
    assert.doesNotMatch(`${error.message} ${error.stack} ${String(error.cause)}`, /secret stuff/);
    return true;
  });
  await writeFile(files.privateKey, pemOf(svid).key);
  assert.ok((await readCredentials(files)).privateKeyPem.equals(pemOf(svid).key));
});
