import assert from 'node:assert/strict';
import { test } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { createHealth } from '../../../src/grpc/health.ts';
import { createReflection } from '../../../src/grpc/reflection.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { formatSocketAddress } from '../../../src/runtime/socket-address.ts';
import { reflect } from '../../support/reflection.ts';
import { never, startEcho } from './echo.ts';

const authorization = 'envoy.service.auth.v3.Authorization';
const secrets = 'envoy.service.secret.v3.SecretDiscoveryService';
const health = 'grpc.health.v1.Health';
const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';

const start = (...names: readonly string[]) =>
  startEcho({}, { services: createReflection(names), health: createHealth([]) });

test('both versions list the services given and declare what these use, and nothing else', async () => {
  for (const version of ['v1', 'v1alpha'] as const) {
    await using echo = await start(authorization, health);
    const target = formatSocketAddress(echo.address);
    const { services, declared } = await reflect(target, credentials.createInsecure(), version);
    assert.deepEqual([...services].sort(), [authorization, health]);
    for (const name of [
      authorization,
      health,
      'envoy.service.auth.v3.CheckRequest',
      'envoy.config.core.v3.Address',
      'google.protobuf.Timestamp',
    ]) {
      assert.ok(declared.includes(name), name);
    }
    assert.deepEqual(
      declared.filter((name) => /secret|spiffe|discovery/i.test(name)),
      [],
    );
  }
});

test('fields have the names that the protos have', async () => {
  await using echo = await start(secrets);
  const target = formatSocketAddress(echo.address);
  const { services, files } = await reflect(target, credentials.createInsecure());
  assert.deepEqual(services, [secrets]);
  assert.ok(files.includes('response_nonce'));
  assert.equal(files.includes('responseNonce'), false);
});

test('what is no request ends its stream, and a stream in progress ends when the server stops', async () => {
  await using echo = await start(authorization);
  async function* broken() {
    yield Buffer.of(0xff);
  }
  const code = (status: number) => (error: unknown) =>
    error instanceof StatusError && error.status === status;
  const refused = echo.client.bidi(path, broken(), { signal: never })[Symbol.asyncIterator]();
  await assert.rejects(refused.next(), code(Status.INVALID_ARGUMENT));

  async function* asking() {
    // list_services: "*"
    yield Buffer.from('3a012a', 'hex');
    await new Promise(() => {});
  }
  const answers = echo.client.bidi(path, asking(), { signal: never })[Symbol.asyncIterator]();
  assert.equal((await answers.next()).value?.includes(authorization), true);
  const stopped = echo.server.shutdown(60_000);
  await assert.rejects(answers.next(), code(Status.UNAVAILABLE));
  echo.client.close();
  await stopped;
});

test('a service that no file declares is a mistake of ours', () => {
  assert.throws(() => createReflection(['test.Echo']), /test\.Echo/);
});
