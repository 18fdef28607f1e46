import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MessageChannel, Worker } from 'node:worker_threads';
import {
  createMainEnd,
  createSharedMemory,
  type MainEnd,
  type Reply,
} from '../../../../src/policy/wasm/wasm-channel.ts';

function open(t: TestContext, firstTicket = 0): MainEnd {
  const { port1, port2 } = new MessageChannel();
  const shared = createSharedMemory(firstTicket);
  const worker = new Worker(new URL('./wasm-channel-echo.ts', import.meta.url), {
    workerData: { shared, port: port2 },
    transferList: [port2],
  });
  const end = createMainEnd({ shared, port: port1 });
  t.after(async () => {
    port1.close();
    end.wake();
    await worker.terminate();
  });
  return end;
}

async function next(end: MainEnd): Promise<Reply> {
  for (;;) {
    const reply = end.receive();
    if (reply !== undefined) return reply;
    await end.wait();
  }
}

test('answers come in the order of the questions, with their tickets', async (t) => {
  const end = open(t);
  const tickets = ['a', 'ü€😀', ''].map((text) => end.send(1, text));
  assert.deepEqual(
    [await next(end), await next(end), await next(end)],
    tickets.map((ticket, i) => ({ ticket, kind: 'result', text: ['a', 'ü€😀', ''][i] })),
  );
  assert.equal(end.receive(), undefined);
});

test('a text that does not fit a slot, in or out, arrives whole between others that do', async (t) => {
  const end = open(t);
  const texts = [
    'small',
    'x'.repeat(32 * 1024),
    'y'.repeat(32 * 1024 + 1),
    '€'.repeat(20_000),
    'z'.repeat(1_000_000),
  ];
  for (const text of texts) end.send(2, text);
  for (const text of texts) assert.equal((await next(end)).text, text + text);
});

test('what the other side throws is an error with its text', async (t) => {
  const end = open(t);
  end.send(3, 'abc');
  assert.deepEqual(await next(end), { ticket: 0, kind: 'error', text: 'cannot evaluate 3 bytes' });
});

test('a cancelled evaluation is passed over, also a large one', async (t) => {
  const end = open(t);
  // The worker is still starting, so none of these has begun.
  const tickets = [end.send(1, 'a'), end.send(1, 'b'.repeat(100_000)), end.send(1, 'c')];
  for (const ticket of tickets.slice(0, 2)) end.cancel(ticket);
  const kinds = [await next(end), await next(end), await next(end)].map(
    ({ kind, text }) => `${kind} ${text}`,
  );
  assert.deepEqual(kinds, ['skipped ', 'skipped ', 'result c']);
});

test('room goes down with each question and comes back with each answer', async (t) => {
  const end = open(t);
  const room = end.room();
  for (let i = 0; i < room; i++) end.send(1, String(i));
  assert.equal(end.room(), 0);
  for (let i = 0; i < room; i++) assert.equal((await next(end)).text, String(i));
  assert.equal(end.room(), room);
});

test('it goes on across the wrap of its 32-bit tickets', async (t) => {
  const end = open(t, 2 ** 31 - 100);
  for (let i = 0; i < 300; i++) {
    end.send(1, String(i));
    if (end.room() > 0 && i < 299) continue;
    while (end.room() < 64) await next(end);
  }
  end.send(1, 'last');
  assert.equal((await next(end)).text, 'last');
});
