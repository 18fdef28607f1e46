import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createGrpcClient } from '../../src/grpc/client.ts';
import type { MessageTypes } from '../../src/grpc/messages.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import { Status, StatusError } from '../../src/grpc/status.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { tempDirectory } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { fetchSvid } from './svids.ts';
import { allowed, denied, devIdentity, entrypoint, policy } from './world.ts';

type Attributes = NonNullable<MessageTypes['envoy.service.auth.v3.CheckRequest']['in']['attributes']>;
type Answer = Readonly<{ http: string | undefined; reason: unknown }>;

const request = messageCodec('envoy.service.auth.v3.CheckRequest');
const response = messageCodec('envoy.service.auth.v3.CheckResponse');
const options = { signal: new AbortController().signal, timeoutMs: 5000 };

type Caller = Readonly<{
  sidecar: Sidecar;
  workloadApi: string;
  send: (bytes: Buffer) => Promise<Buffer>;
  check: (attributes: Attributes) => Promise<Answer>;
}>;

/** Somebody on the socket who speaks gRPC but is no Envoy. */
async function startCaller(t: TestContext): Promise<Caller> {
  const directory = await tempDirectory(t);
  const workloadApi = `unix://${join(directory, 'workload.sock')}`;
  const file = join(directory, 'bundle.tar.gz');
  await buildWasmBundle(t, { files: { 'policy.rego': policy }, entrypoints: [entrypoint], into: file });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ serve_workload_api: workloadApi }),
      ext_authz: { path: entrypoint },
      policy: { engine: 'wasm', bundle: { file }, timeout: '2s' },
    },
  });
  const client = createGrpcClient({
    target: { kind: 'unix', path: sidecar.socket },
    maxMessageBytes: 8 << 20,
  });
  t.after(() => client.close());
  const send = (bytes: Buffer): Promise<Buffer> =>
    client.unary('/envoy.service.auth.v3.Authorization/Check', bytes, options);
  return {
    sidecar,
    workloadApi,
    send,
    check: async (attributes) => answerOf(await send(request.encode({ attributes }))),
  };
}

function answerOf(bytes: Buffer): Answer {
  const { deniedResponse, dynamicMetadata, status } = response.decode(bytes);
  return {
    http: deniedResponse?.status?.code ?? (status?.code === 0 ? 'OK' : undefined),
    reason: dynamicMetadata?.fields?.reason_code?.stringValue,
  };
}

const http = { method: 'GET', path: '/', host: 'acme', scheme: 'https', protocol: 'HTTP/1.1', headers: {} };

test('bytes that are no CheckRequest are denied with 400, and the next Check is judged as if nothing had been', async (t) => {
  const { send, check } = await startCaller(t);
  const good = { source: { principal: allowed }, request: { http } };
  assert.deepEqual(await check(good), { http: 'OK', reason: undefined });
  for (const bytes of ['ffffffff', '0a', `0a7f${'00'.repeat(4)}`, '0affffffff0f00']) {
    const answer = answerOf(await send(Buffer.from(bytes, 'hex')));
    assert.deepEqual(answer, { http: 'BadRequest', reason: 'malformed_request' }, bytes);
  }
  assert.deepEqual(await check(good), { http: 'OK', reason: undefined });
});

test('a Check beyond the size limit ends its call, and only that', async (t) => {
  const { send, check } = await startCaller(t);
  await assert.rejects(send(Buffer.alloc(5 << 20, 0x0a)), (error) => {
    assert.ok(error instanceof StatusError);
    assert.equal(error.status, Status.RESOURCE_EXHAUSTED);
    return true;
  });
  const good = { source: { principal: allowed }, request: { http } };
  assert.deepEqual(await check(good), { http: 'OK', reason: undefined });
});

test('a Check with nothing in it, or with a principal that is no SPIFFE ID, is denied for want of a peer', async (t) => {
  const { check } = await startCaller(t);
  const denial = { http: 'Forbidden', reason: 'no_peer_identity' };
  assert.deepEqual(await check({}), denial);
  for (const principal of ['CN=allowed', 'spiffe://ACME.test/allowed', `${allowed}/../denied`, 'spiffe://']) {
    assert.deepEqual(await check({ source: { principal }, request: { http } }), denial, principal);
  }
});

test('a certificate must be the one of its principal', async (t) => {
  const { check, workloadApi } = await startCaller(t);
  const { certificatePem } = await fetchSvid(t, workloadApi, allowed);
  const certificate = encodeURIComponent(certificatePem);
  assert.equal((await check({ source: { principal: allowed, certificate }, request: { http } })).http, 'OK');
  assert.deepEqual(await check({ source: { principal: denied, certificate }, request: { http } }), {
    http: 'Forbidden',
    reason: 'peer_mismatch',
  });
  const { http: status } = await check({
    source: { principal: allowed, certificate: certificate.slice(0, 300) },
    request: { http },
  });
  assert.notEqual(status, 'OK');
});
