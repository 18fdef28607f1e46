// SDS over the embedded CA, in a process of its own. A message from the parent rotates; the answer is the time it began.

import { createGrpcServer } from '../../src/grpc/server.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { createSdsService } from '../../src/sds/service.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/spiffe-id.ts';
import { createTrustStore } from '../../src/trust/store.ts';
import { createDevSource } from '../../src/workload/dev.ts';

const socketPath = process.argv[2];
if (socketPath === undefined) throw new Error('usage: sds-server SOCKET');

const source = await createDevSource({
  trustDomain: parseTrustDomain('bench.test'),
  spiffeIds: [parseSpiffeId('spiffe://bench.test/service/web')],
  svidTtlMs: 3_600_000,
  jwtSvidTtlMs: 300_000,
  now: Date.now,
  sleep,
  log: silentLogger,
});
const store = createTrustStore({ now: Date.now, log: silentLogger, meter: { applied() {}, rotated() {} } });
const { service } = createSdsService({
  snapshots: store,
  options: {
    defaultSvidName: 'default',
    defaultBundleName: 'ROOTCA',
    defaultAllBundlesName: 'ALL',
    jwtAudiences: [],
    spiffeValidator: true,
    defaultSvidHint: undefined,
    unknownNames: 'wait',
  },
  log: silentLogger,
  meter: {
    streamOpened() {},
    streamClosed() {},
    pushed() {},
    acked() {},
    nacked() {},
    unknownName() {},
  },
  now: Date.now,
});
const server = createGrpcServer({ services: [service], log: silentLogger });
await server.listen({ kind: 'unix', path: socketPath });
process.on('message', () => {
  const startedAt = Date.now();
  source.rotate().then(
    () => process.send?.({ rotatedAt: startedAt }),
    (error: unknown) => {
      throw error;
    },
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.('ready');
for await (const event of source.watchX509(new AbortController().signal)) {
  if (event.kind === 'update') store.apply({ kind: 'x509', context: event.value });
}
