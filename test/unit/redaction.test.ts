import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { runApp } from '../../src/app/app.ts';
import { loadConfig } from '../../src/config/load.ts';
import { createGrpcClient } from '../../src/grpc/client.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import { loopbackHttp } from '../../src/stack/loopback-http.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';

const adminPaths = [
  '/status',
  '/',
  '/metrics',
  '/spiffe/status',
  '/spiffe/svid/x509',
  '/spiffe/svid/x509/chain',
  '/spiffe/svid/jwt?audience=billing',
  '/spiffe/.well-known/spiffe-bundle',
  '/spiffe/trust-bundle',
  '/spiffe/workload',
  '/.well-known/jwks.json',
];
const secretType = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

test('keys, tokens and credentials reach no log, decision record, metric or admin page', async (t) => {
  const directory = await tempDirectory(t);
  const socket = join(directory, 's.sock');
  const adminPort = await freePort();
  const loaded = loadConfig({
    text: JSON.stringify({
      identity: { source: 'dev' },
      listen: `unix://${socket}`,
      policy: {
        engine: 'wasm',
        timeout: '10s',
        bundle: { file: 'examples/quickstart/policy/bundle.tar.gz' },
      },
      sds: { jwt_audiences: ['sds'] },
      ext_authz: {
        peer: { verify_certificate: 'off', jwt_svid: { header: 'x-peer-token', audiences: ['api'] } },
        inject_jwt_svid: [{ audience: 'upstream', header: 'x-injected-token' }],
      },
      admin: { listen: `127.0.0.1:${adminPort}` },
      outputs: [{ directory: join(directory, 'files'), jwt: [{ audience: 'billing', file: 'jwt.token' }] }],
      log: { level: 'debug' },
    }),
    path: join(import.meta.dirname, '../../svidecar.json'),
    env: {},
  });
  const configSource = {
    path: 'svidecar.json',
    read: () => Promise.resolve(loaded),
    async *requests() {},
  };
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const said: string[] = [];
  for (const stream of [stdout, stderr]) stream.on('data', (chunk: Buffer) => said.push(chunk.toString()));
  const stop = new AbortController();
  const running = runApp(
    { loaded, configSource, stdout, stderr, version: '0.0.0', nodeVersion: 'v0', kill: () => undefined },
    stop.signal,
  );
  t.after(async () => {
    stop.abort();
    await running;
  });
  const admin = async (path: string): Promise<string> =>
    (await loopbackHttp({ port: adminPort, path }, AbortSignal.timeout(5000))).body;
  await until('the sidecar to be ready', async () => {
    const ready = await admin('/ready').catch(() => '');
    return ready.includes('"ready"') ? true : undefined;
  });

  const client = createGrpcClient({ target: { kind: 'unix', path: socket }, maxMessageBytes: 1 << 22 });
  t.after(() => client.close());
  const { signal } = new AbortController();
  const fetchSecrets = async () => {
    const bytes = await client.unary(
      '/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets',
      messageCodec('envoy.service.discovery.v3.DiscoveryRequest').encode({
        node: { id: 'redaction' },
        resourceNames: ['default', 'jwt:sds'],
        typeUrl: secretType,
      }),
      { signal },
    );
    const { resources } = messageCodec('envoy.service.discovery.v3.DiscoveryResponse').decode(bytes);
    const codec = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret');
    return resources.map(({ value }) => codec.decode(Buffer.from(value)));
  };
  // The JWT-SVID is issued a moment after the identity is there.
  const secrets = await until('both secrets', async () => {
    const answer = await fetchSecrets();
    return answer.length === 2 ? answer : undefined;
  });
  const pem = secrets.find(({ name }) => name === 'default')?.tlsCertificate?.privateKey?.inlineBytes;
  const keyPem = Buffer.from(pem ?? '').toString();
  assert.match(keyPem, /BEGIN PRIVATE KEY/, 'the key itself did go to Envoy');
  const sdsToken = secrets.find(({ name }) => name === 'jwt:sds')?.genericSecret?.secret?.inlineString ?? '';
  assert.match(sdsToken, /^eyJ/, 'a token did go to Envoy');

  const credentials = {
    authorization: `Bearer ${randomUUID()}`,
    cookie: `session=${randomUUID()}`,
    'x-forwarded-client-cert': `Hash=${randomUUID()}`,
    'x-peer-token': randomUUID(),
    'x-injected-token': randomUUID(),
  };
  const { decisionId, injected } = await check();
  await until('the decision record', () =>
    Promise.resolve(said.join('').includes(decisionId) ? true : undefined),
  );

  const token = await until('the files of an output', () =>
    readFile(join(directory, 'files/jwt.token'), 'utf8').catch(() => undefined),
  );
  const pages = await Promise.all(adminPaths.map(admin));
  const everything = [...said, ...pages].join('\n');
  const keyBody = keyPem.split('\n').slice(1, -2);
  for (const hidden of [
    ...keyBody,
    'PRIVATE KEY',
    token,
    sdsToken,
    injected,
    ...Object.values(credentials),
  ]) {
    assert.equal(everything.includes(hidden), false, `found ${hidden.slice(0, 12)}…`);
  }
  assert.ok(everything.includes('x-harmless-header-value'), 'what is no credential is still there');

  async function check(): Promise<{ decisionId: string; injected: string }> {
    const response = messageCodec('envoy.service.auth.v3.CheckResponse').decode(
      await client.unary(
        '/envoy.service.auth.v3.Authorization/Check',
        messageCodec('envoy.service.auth.v3.CheckRequest').encode({
          attributes: {
            source: { principal: 'spiffe://dev.local/service/web' },
            request: {
              http: {
                method: 'GET',
                path: '/hello',
                headers: { ...credentials, harmless: 'x-harmless-header-value' },
              },
            },
          },
        }),
        { signal },
      ),
    );
    const id = response.dynamicMetadata?.fields?.['decision_id']?.stringValue ?? '';
    assert.match(id, /^[0-9a-f-]{36}$/);
    const added = response.okResponse?.headers.find(({ header }) => header?.key === 'x-injected-token');
    const injected = added?.header?.value.replace('Bearer ', '') ?? '';
    assert.match(injected, /^eyJ/, 'a token did go to Envoy');
    return { decisionId: id, injected };
  }
});
