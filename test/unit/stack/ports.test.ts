import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { test } from 'node:test';
import { UnavailableError } from '../../../src/runtime/errors.ts';
import { freePorts } from '../../../src/stack/ports.ts';

test('the ports are different and can be bound', async (t) => {
  const ports = await freePorts(10, Math.random);
  assert.equal(new Set(ports).size, 10);
  for (const port of ports) t.after(closer(await listen(port)));
});

test('a port that is taken is not given', async (t) => {
  const [port] = await freePorts(1, Math.random);
  assert.ok(port !== undefined);
  t.after(closer(await listen(port)));
  const draws = [port, port, port + 1 > 29_999 ? port - 1 : port + 1].map((p) => (p - 15_000 + 0.5) / 15_000);
  const [other] = await freePorts(1, () => draws.shift() ?? Math.random());
  assert.notEqual(other, port);
});

test('when no port is free there is an error and no endless search', async (t) => {
  const [port] = await freePorts(1, Math.random);
  assert.ok(port !== undefined);
  t.after(closer(await listen(port)));
  await assert.rejects(
    freePorts(1, () => (port - 15_000 + 0.5) / 15_000),
    UnavailableError,
  );
});

function listen(port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

function closer(server: Server): () => void {
  return () => {
    server.close();
  };
}
