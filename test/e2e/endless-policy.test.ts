import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGrpcClient } from '../../src/grpc/client.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import { until } from '../support/process.ts';
import { http, startCaller } from './caller.ts';
import { allowed } from './world.ts';

/** Ten thousand million steps for one path, an allow for every other. */
const rego = `package envoy.authz

default allow := false

allow if input.attributes.request.http.path != "/endless"

allow if {
	input.attributes.request.http.path == "/endless"
	some a in numbers.range(1, 100000)
	some b in numbers.range(1, 100000)
	a + b < 0
}
`;

test('an endless policy costs its Checks their timeout; SDS and /live do not notice, and Checks are judged again', async (t) => {
  const { check, sidecar } = await startCaller(t, {}, { rego, timeout: '300ms' });
  const client = createGrpcClient({
    target: { kind: 'unix', path: sidecar.socket },
    maxMessageBytes: 1 << 20,
  });
  t.after(() => client.close());
  const source = { principal: allowed };
  const judge = (path: string) => check({ source, request: { http: { ...http, path } } });
  assert.deepEqual(await judge('/'), { http: 'OK', reason: undefined });

  const endless = Promise.all(Array.from({ length: 5 }, () => judge('/endless')));
  const over = new AbortController();
  const done = endless.finally(() => over.abort());
  const slowest = { sds: 0, live: 0 };
  let rounds = 0;
  while (!over.signal.aborted) {
    let startedAt = performance.now();
    const answer = messageCodec('envoy.service.discovery.v3.DiscoveryResponse').decode(
      await client.unary(
        '/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets',
        messageCodec('envoy.service.discovery.v3.DiscoveryRequest').encode({
          node: { id: 'beside' },
          resourceNames: ['default'],
          typeUrl: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
        }),
        { signal: new AbortController().signal },
      ),
    );
    assert.equal(answer.resources.length, 1);
    slowest.sds = Math.max(slowest.sds, performance.now() - startedAt);
    startedAt = performance.now();
    assert.equal((await sidecar.admin('/live')).status, 200);
    slowest.live = Math.max(slowest.live, performance.now() - startedAt);
    rounds += 1;
  }
  for (const answer of await done) {
    assert.deepEqual(answer, { http: 'Forbidden', reason: 'engine_timeout' });
  }
  assert.ok(rounds > 3, `only ${rounds} looks while the policy ran`);
  // Far below what the policy would have taken; a thread that is not blocked answers in milliseconds.
  assert.ok(slowest.sds < 2000 && slowest.live < 2000, JSON.stringify(slowest));
  assert.ok((await sidecar.metric('svidecar_policy_workers_replaced_total{cause="timeout"}')) >= 1);
  await until('Checks to be judged again', async () => ((await judge('/')).http === 'OK' ? true : undefined));
});
