import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { type TestContext, test } from 'node:test';
import { bindTcp } from '../../../src/runtime/bind-tcp.ts';

const words = { failure: 'the echo server cannot listen', taken: 'stop the other program' };

function server(t: TestContext): Server {
  const created = createServer();
  t.after(() => created.close());
  return created;
}

test('it gives the port that the system picked, and names a taken one with its remedy', async (t) => {
  const port = await bindTcp(server(t), { host: '127.0.0.1', port: 0 }, words);
  assert.ok(port > 0);
  await assert.rejects(bindTcp(server(t), { host: '127.0.0.1', port }, words), {
    code: 'unavailable',
    message: 'the echo server cannot listen: the port is taken; stop the other program',
  });
});

test('an error of the server after it was bound does not end the program', async (t) => {
  const bound = server(t);
  await bindTcp(bound, { host: '127.0.0.1', port: 0 }, words);
  assert.equal(bound.emit('error', new Error('accept EMFILE')), true);
});
