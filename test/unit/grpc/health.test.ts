import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import { protoPath } from 'grpc-health-check';
import { createHealth } from '../../../src/grpc/health.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { never, startEcho } from './echo.ts';

const definitions = loadSync(protoPath, { enums: String });
const request = definitions['grpc.health.v1.HealthCheckRequest'] as MessageTypeDefinition<object, object>;
const response = definitions['grpc.health.v1.HealthCheckResponse'] as MessageTypeDefinition<object, object>;
const listResponse = definitions['grpc.health.v1.HealthListResponse'] as MessageTypeDefinition<
  object,
  object
>;

const ask = (service: string): Buffer => request.serialize({ service });
const read = (bytes: Buffer): unknown => (response.deserialize(bytes) as { status: string }).status;

describe('the health service', () => {
  it('is not serving until told, for the process and for each service', async () => {
    const health = createHealth(['test.Echo']);
    await using echo = await startEcho({}, { health });
    for (const service of ['', 'test.Echo']) {
      const check = async (): Promise<unknown> =>
        read(await echo.client.unary('/grpc.health.v1.Health/Check', ask(service), { signal: never }));
      assert.equal(await check(), 'NOT_SERVING');
      health.setServing(true);
      assert.equal(await check(), 'SERVING');
      health.setServing(false);
      assert.equal(await check(), 'NOT_SERVING');
    }
  });

  it('does not know other services', async () => {
    await using echo = await startEcho({}, { health: createHealth([]) });
    await assert.rejects(
      echo.client.unary('/grpc.health.v1.Health/Check', ask('other'), { signal: never }),
      (error) => error instanceof StatusError && error.status === Status.NOT_FOUND,
    );
  });

  it('tells watchers of every change', async () => {
    const health = createHealth([]);
    await using echo = await startEcho({}, { health });
    const seen: unknown[] = [];
    for await (const bytes of echo.client.serverStream('/grpc.health.v1.Health/Watch', ask(''), {
      signal: never,
    })) {
      seen.push(read(bytes));
      if (seen.length === 3) break;
      health.setServing(seen.length === 1);
    }
    assert.deepEqual(seen, ['NOT_SERVING', 'SERVING', 'NOT_SERVING']);
  });

  it('tells watchers of a service that it does not know so, and keeps them', async () => {
    await using echo = await startEcho({}, { health: createHealth([]) });
    const stop = new AbortController();
    const watch = echo.client.serverStream('/grpc.health.v1.Health/Watch', ask('other'), {
      signal: stop.signal,
    });
    const answers = watch[Symbol.asyncIterator]();
    const first = await answers.next();
    assert.equal(first.done === true ? undefined : read(first.value), 'SERVICE_UNKNOWN');
    const second = answers.next();
    stop.abort();
    await assert.rejects(second, AbortedError);
  });

  it('lists what it knows', async () => {
    const health = createHealth(['test.Echo']);
    health.setServing(true);
    await using echo = await startEcho({}, { health });
    const bytes = await echo.client.unary('/grpc.health.v1.Health/List', Buffer.alloc(0), { signal: never });
    assert.deepEqual(listResponse.deserialize(bytes), {
      statuses: { '': { status: 'SERVING' }, 'test.Echo': { status: 'SERVING' } },
    });
  });
});
