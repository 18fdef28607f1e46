// 1000 SDS streams over one connection to one sidecar's SDS: the time until every stream has its first answer, and the
// time from a rotation until the last stream has the new certificate. The server is a process of its own.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { createGrpcClient } from '../../src/grpc/client.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import { median } from './load.ts';

const streams = 1000;
const rounds = 5;
const typeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';
const method = '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';
const request = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');
const response = messageCodec('envoy.service.discovery.v3.DiscoveryResponse');

const directory = mkdtempSync(path.join(tmpdir(), 'svidecar-bench-'));
const socketPath = path.join(directory, 'sds.sock');
const server = fork(fileURLToPath(new URL('sds-server.ts', import.meta.url)), [socketPath]);

try {
  await once(server, 'message');
  const first: number[] = [];
  const rotation: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const figures = await measure();
    first.push(figures.firstMs);
    rotation.push(figures.rotationMs);
  }
  process.stdout.write(
    `sds, ${streams} streams, all have their first answer after: median ${median(first).toFixed(0)} ms of ${rounds} rounds\n` +
      `sds, ${streams} streams, all have the new certificate after a rotation began: median ${median(rotation).toFixed(0)} ms of ${rounds} rounds\n`,
  );
} finally {
  server.disconnect();
  rmSync(directory, { recursive: true, force: true });
}

async function measure(): Promise<{ firstMs: number; rotationMs: number }> {
  const client = createGrpcClient({
    target: { kind: 'unix', path: socketPath },
    maxMessageBytes: 4 * 1024 * 1024,
  });
  const stop = new AbortController();
  const counts = { first: countdown(streams), second: countdown(streams) };
  const startedAt = Date.now();
  const running = Array.from({ length: streams }, () => follow());
  await counts.first.done;
  const firstMs = Date.now() - startedAt;
  server.send('rotate');
  const [message] = (await once(server, 'message')) as [{ rotatedAt: number }];
  await counts.second.done;
  const rotationMs = Date.now() - message.rotatedAt;
  stop.abort();
  await Promise.allSettled(running);
  client.close();
  return { firstMs, rotationMs };

  async function follow(): Promise<void> {
    const requests = new TransformStream<Buffer, Buffer>();
    const writer = requests.writable.getWriter();
    void writer.write(request.encode({ node: { id: 'bench' }, resourceNames: ['default'], typeUrl }));
    const answers = client.bidi(method, requests.readable, { signal: stop.signal });
    let count = 0;
    for await (const bytes of answers) {
      const { versionInfo, nonce } = response.decode(bytes);
      count += 1;
      if (count === 1) counts.first.hit();
      if (count === 2) counts.second.hit();
      void writer.write(
        request.encode({ versionInfo, responseNonce: nonce, resourceNames: ['default'], typeUrl }),
      );
    }
  }
}

function countdown(total: number): { hit(): void; done: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  let left = total;
  return {
    hit() {
      left -= 1;
      if (left === 0) resolve();
    },
    done: promise,
  };
}
