import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status, StatusError } from '../../src/grpc/status.ts';
import { answerOf, http, startCaller } from './caller.ts';
import { fetchSvid } from './svids.ts';
import { allowed, denied } from './world.ts';

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
