import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createConnectionRoom } from '../../../src/runtime/connection-room.ts';
import { until } from '../../support/process.ts';

/** A server with room for `max`; its ends of the connections in their order, and how to open one more. */
async function startServer(t: TestContext, max: number) {
  const accepted: Socket[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => {});
    accepted.push(socket);
  });
  const room = createConnectionRoom(server, max);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of accepted) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    room,
    accepted,
    open: async (): Promise<Socket> => {
      const before = accepted.length;
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      t.after(() => socket.destroy());
      await until('the connection', () => accepted[before]);
      return socket.resume();
    },
  };
}

test('of more connections than there is room for the oldest gives way', async (t) => {
  const { open, accepted } = await startServer(t, 3);
  for (let i = 0; i < 5; i++) await open();
  assert.deepEqual(
    accepted.map(({ destroyed }) => destroyed),
    [true, true, false, false, false],
  );
});

test('one that is in use stays, until it is used no more', async (t) => {
  const { room, open, accepted } = await startServer(t, 2);
  await open();
  const release = room.use(accepted[0] as Socket);
  for (let i = 0; i < 3; i++) await open();
  assert.deepEqual(
    accepted.map(({ destroyed }) => destroyed),
    [false, true, false, false],
  );
  release();
  assert.equal(accepted[2]?.destroyed, true);
  await open();
  assert.deepEqual(
    accepted.map(({ destroyed }) => destroyed),
    [false, true, true, true, false],
  );
});

test('one that ends makes room, also when it was in use', async (t) => {
  const { room, open, accepted } = await startServer(t, 2);
  const [first, second] = [await open(), await open()];
  const release = room.use(accepted[1] as Socket);
  first.destroy();
  second.destroy();
  await until('both to end', () => accepted.every(({ destroyed }) => destroyed) || undefined);
  release();
  for (let i = 0; i < 2; i++) await open();
  assert.deepEqual(
    accepted.slice(2).map(({ destroyed }) => destroyed),
    [false, false],
  );
});
