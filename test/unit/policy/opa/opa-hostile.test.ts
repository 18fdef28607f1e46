import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { outcomeOf } from '../../../../src/extauthz/outcome.ts';
import { createHttpClient } from '../../../../src/http/client.ts';
import { createOpaApi } from '../../../../src/policy/opa/opa-api.ts';
import { createOpaRestEngine } from '../../../../src/policy/opa/opa-rest.ts';
import { silentLogger } from '../../../../src/runtime/log.ts';
import { until } from '../../../support/process.ts';

const forever = new AbortController().signal;
const head = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n';

/** An engine and somebody on OPA's port who does as he likes with each connection. */
async function setUp(t: TestContext, behave: (socket: Socket) => void, timeoutMs = 5_000) {
  const sockets = new Set<Socket>();
  let written = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => {
      written += socket.bytesWritten;
      sockets.delete(socket);
    });
    socket.once('data', () => behave(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const http = createHttpClient({ maxSockets: 8 });
  t.after(() => {
    http.close();
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const engine = createOpaRestEngine({ api: createOpaApi({ url, http }), timeoutMs, log: silentLogger });
  const ask = async (signal: AbortSignal = forever): Promise<string> => {
    const evaluation = await engine.evaluate('a', {}, signal);
    return evaluation.kind === 'failure' ? `${evaluation.reason}: ${evaluation.message}` : evaluation.kind;
  };
  return { engine, ask, sockets, written: () => written };
}

/** Writes `chunk` as often and as fast as the other side takes it, until it goes away. */
function pour(socket: Socket, chunk: string | Buffer): void {
  const more = (): void => {
    while (!socket.destroyed && socket.write(chunk));
  };
  socket.on('drain', more);
  more();
}

for (const [what, answer, expected] of [
  ['something that is no HTTP', 'SSH-2.0-OpenSSH_9.9\r\n', /^engine_error: .*not valid HTTP/],
  ['nothing at all', '', /^engine_unavailable/],
  ['half a status line', 'HTTP/1.1 20', /^engine_(?:unavailable|error)/],
  [
    'an answer cut short',
    `${head}content-length: 900\r\n\r\n{"result":true}`,
    /^engine_(?:unavailable|error)/,
  ],
  [
    'a chunked answer cut short',
    `${head}transfer-encoding: chunked\r\n\r\nf\r\n{"result":true}\r\n`,
    /^engine_(?:unavailable|error)/,
  ],
  [
    'a second answer nobody asked for',
    `${head}content-length: 2\r\n\r\n{}${head}content-length: 15\r\n\r\n{"result":true}`,
    /^undefined/,
  ],
  [
    'a body that is no gzip',
    `${head}content-encoding: gzip\r\ncontent-length: 15\r\n\r\n{"result":true}`,
    /^engine_error/,
  ],
  [
    'a redirect',
    'HTTP/1.1 307 Moved\r\nlocation: /v1/data/b\r\ncontent-length: 0\r\n\r\n',
    /^engine_error: .*307/,
  ],
  ['bytes that are no UTF-8', `${head}content-length: 3\r\n\r\n\xff\xfe\xfd`, /^engine_error: .*not JSON/],
] as const) {
  test(`an OPA that answers with ${what} decides nothing`, async (t) => {
    const { ask } = await setUp(t, (socket) => socket.end(Buffer.from(answer, 'latin1')));
    assert.match(await ask(), expected);
  });
}

test('an answer byte by byte costs no more than the time there is, and its connection', async (t) => {
  const { ask, sockets } = await setUp(
    t,
    (socket) => {
      socket.write(`${head}content-length: 100000\r\n\r\n`);
      const drip = setInterval(() => socket.write(' '), 10);
      socket.on('close', () => clearInterval(drip));
    },
    300,
  );
  assert.match(await ask(), /^engine_timeout: no answer within 300 ms/);
  await until('the end of the connection', () => Promise.resolve(sockets.size === 0 || undefined));
});

test('headers without end are refused after some, a body without end after 4 MiB, and the connection ends', async (t) => {
  const endless: readonly (readonly [string, string, RegExp])[] = [
    ['HTTP/1.1 200 OK\r\n', 'x-more: and more of it\r\n', /^engine_error: .*not valid HTTP/],
    [
      `${head}connection: keep-alive\r\n\r\n`,
      'x'.repeat(65_536),
      /^engine_error: .*longer than 4194304 bytes/,
    ],
    [
      `${head}content-length: 104857600\r\n\r\n`,
      ' '.repeat(65_536),
      /^engine_error: .*longer than 4194304 bytes/,
    ],
  ];
  for (const [start, then, expected] of endless) {
    const { ask, sockets, written } = await setUp(t, (socket) => {
      socket.write(start);
      pour(socket, then);
    });
    assert.match(await ask(), expected);
    await until('the end of the connection', () => Promise.resolve(sockets.size === 0 || undefined));
    assert.ok(written() < 32 * 1024 * 1024, `${written()} bytes were taken`);
  }
});

test('an answer that only unpacks to too much is refused', async (t) => {
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 32));
  const { ask } = await setUp(t, (socket) => {
    socket.write(`${head}content-encoding: gzip\r\ncontent-length: ${bomb.length}\r\n\r\n`);
    socket.end(bomb);
  });
  assert.match(await ask(), /^engine_error: .*longer than/);
});

test('a Check that is cancelled ends its exchange', async (t) => {
  const stop = new AbortController();
  const { ask, sockets } = await setUp(t, () => stop.abort());
  assert.match(await ask(stop.signal), /^engine_timeout/);
  await until('the end of the connection', () => Promise.resolve(sockets.size === 0 || undefined));
});

test('a result nested without measure or with the names of prototypes is read as what it is', async (t) => {
  let result = '';
  const { engine } = await setUp(t, (socket) => {
    const body = `{"result":${result}}`;
    socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  });
  const depth = 500_000;
  for (const [text, expected] of [
    [`${'['.repeat(depth)}${']'.repeat(depth)}`, 'malformed_decision'],
    [`{"allowed":${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}}`, 'malformed_decision'],
    ['{"__proto__":{"allowed":true}}', 'malformed_decision'],
    ['{"constructor":{"prototype":{"allowed":true}}}', 'malformed_decision'],
    ['{"allowed":false,"__proto__":{"allow":false,"http_status":200}}', 'policy_denied'],
  ] as const) {
    result = text;
    const outcome = outcomeOf(await engine.evaluate('a', {}, forever));
    assert.equal(outcome.kind === 'denied' && outcome.decision.code, expected, text.slice(0, 60));
    if (outcome.kind === 'denied') assert.equal(outcome.decision.httpStatus, 403);
  }
  assert.equal(({} as { allowed?: unknown }).allowed, undefined);
});
