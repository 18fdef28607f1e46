import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { startProcess, type TestProcess, tempDirectory, until } from '../support/process.ts';
import { program } from '../support/sidecar.ts';

/** Starts the demo with a directory of its own for temporary files. */
async function startDemo(t: TestContext): Promise<{ demo: TestProcess; directory: string }> {
  const directory = await tempDirectory(t);
  const [command, ...args] = program;
  const demo = await startProcess(t, {
    name: 'demo',
    command: command ?? '',
    args: [...args, 'demo'],
    env: { PATH: process.env.PATH ?? '', TMPDIR: directory },
  });
  return { demo, directory };
}

test('the demo tells only what is true, in under a minute, and leaves nothing behind', async (t) => {
  const { demo, directory } = await startDemo(t);
  const startedAt = performance.now();
  await demo.waitForLine(/^ok .* SDS gave four real Envoys/, { timeoutMs: 60_000 });
  const children = await childrenOf(demo.pid);
  assert.ok(children.length >= 7, `only ${children.length} child processes`);
  const exit = await demo.exit;

  const lines = demo.recentLines();
  assert.deepEqual(exit, { code: 0, signal: undefined }, lines.join('\n'));
  assert.deepEqual(
    lines.map((line) => line.slice(0, 4)),
    ['ok  ', 'ok  ', 'ok  ', 'ok  ', 'ok  ', 'ok  ', 'ok  ', 'done'],
  );
  assert.ok(performance.now() - startedAt < 60_000);
  await nothingLeft(children, directory);
});

test('Ctrl-C in the middle of the demo ends it and everything that it started', async (t) => {
  const { demo, directory } = await startDemo(t);
  await demo.waitForLine(/^ok .* mutual TLS/, { timeoutMs: 60_000 });
  const children = await childrenOf(demo.pid);
  assert.ok(children.length >= 7, `only ${children.length} child processes`);
  // As a terminal does it: the whole group gets the signal, here in the worst order.
  for (const pid of children) process.kill(pid, 'SIGINT');
  demo.kill('SIGINT');
  const exit = await demo.exit;

  assert.deepEqual(exit, { code: 1, signal: undefined });
  assert.ok(!demo.recentLines().some((line) => line.startsWith('FAIL')), demo.recentLines().join('\n'));
  await nothingLeft(children, directory);
});

test('when nobody reads what the demo says any more it ends, and everything that it started', async (t) => {
  const directory = await tempDirectory(t);
  const [command = '', ...args] = program;
  const env = { PATH: process.env.PATH ?? '', TMPDIR: directory };
  const demo = spawn(command, [...args, 'demo'], { env, stdio: ['ignore', 'pipe', 'ignore'] });
  t.after(() => demo.kill('SIGKILL'));
  const exit = once(demo, 'exit');
  await once(demo.stdout, 'data');
  const children = await childrenOf(demo.pid ?? 0);
  assert.ok(children.length >= 3, `only ${children.length} child processes`);
  demo.stdout.destroy();

  assert.deepEqual(await exit, [1, null]);
  await nothingLeft(children, directory);
});

async function childrenOf(pid: number): Promise<readonly number[]> {
  const lists = globSync(`/proc/${pid}/task/*/children`).map((path) => readFile(path, 'utf8'));
  return (await Promise.all(lists)).join(' ').split(' ').filter(Boolean).map(Number);
}

async function nothingLeft(pids: readonly number[], directory: string): Promise<void> {
  for (const pid of pids) {
    await until(`process ${pid} to be gone`, () => {
      try {
        process.kill(pid, 0);
        return undefined;
      } catch {
        return true;
      }
    });
  }
  assert.deepEqual(await readdir(directory), []);
}
