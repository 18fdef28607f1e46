import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createHttpClient } from '../../../../src/http/client.ts';
import { createOpaApi } from '../../../../src/policy/opa/opa-api.ts';
import { createOpaPush } from '../../../../src/policy/opa/opa-push.ts';
import { createOpaRestEngine } from '../../../../src/policy/opa/opa-rest.ts';
import type { PushItem } from '../../../../src/policy/opa/push-item.ts';
import { createPushedEngine } from '../../../../src/policy/opa/pushed-engine.ts';
import { sleep } from '../../../../src/runtime/abort.ts';
import { silentLogger } from '../../../../src/runtime/log.ts';
import { tempDirectory, until } from '../../../support/process.ts';

const forever = new AbortController().signal;
const eventually = (what: string, holds: () => boolean): Promise<unknown> =>
  until(what, () => Promise.resolve(holds() || undefined));

/** An OPA as far as a push goes: it stores what it is given, refuses Rego with `bad` in it, and forgets on command. */
class PlayedOpa {
  readonly stored = new Map<string, string>();
  readonly puts: string[] = [];
  server: Server | undefined;
  port = 0;
  /** Revision of a bundle of its own, and the place that the bundle owns: nobody else can write there. */
  bundle: Readonly<{ revision: string; owns: string }> | undefined;
  /** A status in place of every answer to a PUT. */
  failWith: number | undefined;

  async start(): Promise<void> {
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const [status, body] = this.answer(
          request.method ?? '',
          (request.url ?? '').replace('/v1/', '').replace('?provenance=true', ''),
          Buffer.concat(chunks).toString(),
        );
        response.writeHead(status, { 'content-type': 'application/json' }).end(body);
      });
    });
    server.listen(this.port, '127.0.0.1');
    await once(server, 'listening');
    this.server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  answer(method: string, path: string, body: string): readonly [number, string?] {
    if (method === 'PUT') {
      if (this.failWith !== undefined) return [this.failWith, '{}'];
      if (path === this.bundle?.owns) return [400, JSON.stringify({ message: 'owned by a bundle' })];
      if (body.includes('bad')) {
        const location = { file: path, row: 3, col: 7 };
        const errors = [{ code: 'rego_parse_error', message: 'unexpected token', location }];
        return [400, JSON.stringify({ code: 'invalid_parameter', message: 'does not compile', errors })];
      }
      if (!path.startsWith('data/svidecar/')) this.puts.push(path);
      this.stored.set(path, body);
      return path.startsWith('data/') ? [204] : [200, '{}'];
    }
    const found = this.stored.get(path);
    if (method === 'GET') {
      const bundles = this.bundle && { b: { revision: this.bundle.revision } };
      const result = found && (JSON.parse(found) as unknown);
      return [200, JSON.stringify({ result, provenance: { version: '1', bundles } })];
    }
    return [
      200,
      JSON.stringify({ result: [...this.stored.keys()].filter((key) => !key.includes('svidecar')) }),
    ];
  }

  /** A bundle comes into force: what others wrote in its place is gone. */
  activate(revision: string, owns: string): void {
    this.bundle = { revision, owns };
    this.stored.delete(owns);
  }

  async stop(): Promise<void> {
    const closed = this.server === undefined ? undefined : once(this.server, 'close');
    this.server?.close();
    this.server?.closeAllConnections();
    await closed;
    this.server = undefined;
  }

  /** Started anew, with nothing in it. */
  async restart(): Promise<void> {
    await this.stop();
    this.stored.clear();
    await this.start();
  }
}

async function setUp(t: TestContext, contents: readonly (readonly ['policy' | 'data', string, string])[]) {
  const directory = await tempDirectory(t);
  const items = contents.map(
    ([kind, target], index): PushItem => ({ kind, target, file: join(directory, `f${index}`) }),
  );
  const write = async (index: number, content: string): Promise<void> => {
    await writeFile(join(directory, 'new'), content);
    await rename(join(directory, 'new'), join(directory, `f${index}`));
  };
  for (const [index, [, , content]] of contents.entries()) await write(index, content);
  const opa = new PlayedOpa();
  await opa.start();
  const counted: string[] = [];
  const told: string[] = [];
  const http = createHttpClient({ maxSockets: 8, onIdleEnd: () => push.doubt() });
  const api = createOpaApi({ url: `http://127.0.0.1:${opa.port}`, http, onBroken: () => push.doubt() });
  const push = createOpaPush({
    api,
    items,
    now: () => performance.now(),
    sleep,
    random: Math.random,
    log: { ...silentLogger, error: (fields) => void told.push(String((fields as { error: unknown }).error)) },
    meter: { pushed: (outcome) => void counted.push(outcome), pushLost: () => void counted.push('lost') },
  });
  const stop = new AbortController();
  const running = push.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
    http.close();
    await opa.stop();
  });
  const rest = createOpaRestEngine({ api, timeoutMs: 2_000, log: silentLogger });
  return { opa, push, items, write, counted, told, engine: createPushedEngine(rest, push) };
}

test('files are pushed in their order before it is ready, and a changed one again', async (t) => {
  const { opa, push, write, engine, told } = await setUp(t, [
    ['data', 'acl/agents', '{"a":1}'],
    ['policy', 'authz/main.rego', 'package a'],
  ]);
  await eventually('ready', () => push.ready());
  assert.deepEqual(opa.puts, ['data/acl/agents', 'policies/authz/main.rego']);
  assert.equal(push.problem(), undefined);
  assert.deepEqual(told, [], 'nothing is wrong while the files are looked at for the first time');
  const revision = push.revision();
  const answer = await engine.evaluate('x', {}, forever);
  assert.deepEqual(answer, {
    kind: 'result',
    value: ['data/acl/agents', 'policies/authz/main.rego'],
    bundles: { push: { revision } },
  });
  await write(0, '{"a":2}');
  await eventually('the new data', () => opa.stored.get('data/acl/agents') === '{"a":2}');
  await eventually('another revision', () => push.revision() !== revision && push.revision() !== '');
  assert.equal(opa.puts.length, 3);
});

test('what OPA refuses keeps it from being ready, with file and line, until it is mended', async (t) => {
  const { push, write, engine, told, items } = await setUp(t, [
    ['policy', 'one', 'bad'],
    ['policy', 'two', 'package b'],
  ]);
  await eventually('a problem of the policy', () => /does not compile/.test(push.problem() ?? ''));
  assert.equal(push.ready(), false);
  assert.equal(engine.ready(), false);
  const text = `${items[0]?.file} (policy one): OPA answered HTTP status 400: does not compile; policies/one:3:7: unexpected token`;
  assert.equal(push.problem(), text);
  assert.deepEqual(await engine.evaluate('x', {}, forever), {
    kind: 'failure',
    reason: 'engine_unavailable',
    message: text,
  });
  await write(0, 'package a');
  await eventually('ready', () => push.ready());
  assert.equal(push.problem(), undefined);
  assert.equal(told.filter((line) => line === text).length, 1, 'told once, not at every attempt');
});

test('a later version that OPA refuses is told, and OPA keeps what it has, also after it was started anew', async (t) => {
  const { opa, push, write, engine, items } = await setUp(t, [
    ['policy', 'one', 'package a'],
    ['policy', 'two', 'package b'],
  ]);
  await eventually('ready', () => push.ready());
  await write(0, 'bad');
  await eventually('a problem', () => push.problem() !== undefined);
  assert.equal(push.ready(), true);
  assert.equal(opa.stored.get('policies/one'), 'package a');
  assert.equal((await engine.evaluate('x', {}, forever)).kind, 'result');
  await opa.restart();
  await eventually('the files again', () => opa.stored.size >= 3 && push.ready());
  assert.equal(opa.stored.get('policies/one'), 'package a');
  assert.match(push.problem() ?? '', /does not compile/);
  await rm(items[0]?.file ?? '');
  await eventually('another problem', () => /there is no file/.test(push.problem() ?? ''));
  assert.equal(push.ready(), true);
  await write(0, 'package a');
  await eventually('no problem', () => push.problem() === undefined);
});

test('an OPA that was started anew is never asked before it has everything again', async (t) => {
  const { opa, push, engine, counted } = await setUp(t, [['policy', 'one', 'package a']]);
  await eventually('ready', () => push.ready());
  for (let round = 0; round < 5; round++) {
    await engine.evaluate('x', {}, forever);
    await opa.restart();
    for (let i = 0; i < 20; i++) {
      const answer = await engine.evaluate('x', {}, forever);
      if (answer.kind === 'result') assert.deepEqual(answer.value, ['policies/one']);
      else assert.equal(answer.kind, 'failure');
    }
    await eventually('ready again', () => push.ready());
  }
  assert.ok(counted.includes('lost'));
});

test('an OPA that forgets without ending a connection is found out', async (t) => {
  const { opa, push, counted } = await setUp(t, [['data', 'a', '1']]);
  await eventually('ready', () => push.ready());
  opa.stored.clear();
  await eventually('a loss', () => counted.includes('lost'));
  await eventually('ready again', () => push.ready() && opa.stored.get('data/a') === '1');
});

test("a bundle of OPA's own that puts a pushed file away is found out, and one that does not changes nothing", async (t) => {
  const { opa, push, counted } = await setUp(t, [
    ['data', 'a', '1'],
    ['data', 'b', '2'],
  ]);
  await eventually('ready', () => push.ready());
  opa.activate('1', 'data/elsewhere');
  await eventually('both again', () => opa.puts.length >= 4);
  assert.equal(push.ready(), true);
  opa.activate('2', 'data/a');
  await eventually('not ready', () => !push.ready());
  assert.match(push.problem() ?? '', /data a.*owned by a bundle/);
  assert.ok(counted.includes('lost'));
  opa.activate('3', 'data/elsewhere');
  await eventually('ready again', () => push.ready() && opa.stored.get('data/a') === '1');
});

test('an OPA that is away, or has trouble, is given the files when it is back', async (t) => {
  const { opa, push, counted, told } = await setUp(t, [['data', 'a', '1']]);
  await opa.stop();
  await opa.start();
  opa.failWith = 500;
  opa.stored.clear();
  await eventually('a failure', () => counted.includes('failed'));
  assert.equal(push.ready(), false);
  assert.match(told.join('\n'), /HTTP status 500/);
  opa.failWith = undefined;
  await eventually('ready', () => push.ready());
  assert.equal(opa.stored.get('data/a'), '1');
});

test('a file that is missing, too large or no JSON is not pushed, and named', async (t) => {
  const { opa, push, write, items } = await setUp(t, [['data', 'a', '{"a":']]);
  const { file = '' } = items[0] ?? {};
  await eventually('a problem', () => push.problem() === `${file} is not JSON`);
  await writeFile(file, Buffer.alloc(16 * 1024 * 1024 + 1, 32));
  await eventually('another', () => /is larger than/.test(push.problem() ?? ''));
  await rm(file);
  await eventually('a third', () => push.problem() === `there is no file ${file}`);
  assert.equal(push.ready(), false);
  assert.deepEqual(opa.puts, []);
  await write(0, '[12345678901234567890]');
  await eventually('ready', () => push.ready());
  assert.equal(opa.stored.get('data/a'), '[12345678901234567890]');
});
