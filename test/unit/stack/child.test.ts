import assert from 'node:assert/strict';
import process from 'node:process';
import { test } from 'node:test';
import { sleep } from '../../../src/runtime/abort.ts';
import { UnavailableError } from '../../../src/runtime/errors.ts';
import { type ChildSpec, describeExit, startChild } from '../../../src/stack/child.ts';

const node = (script: string, more: Partial<ChildSpec> = {}): ChildSpec => ({
  name: 'child',
  command: process.execPath,
  args: ['-e', script],
  env: {},
  ...more,
});

test('a program that does not exist is an error that names the service', async () => {
  const starting = startChild({ name: 'envoy', command: '/nonexistent/envoy', args: [], env: {} });
  await assert.rejects(starting, (error) => {
    assert.ok(error instanceof UnavailableError);
    assert.match(error.message, /^envoy cannot be started: .*ENOENT/);
    return true;
  });
});

test('every line of both outputs is held and handed on, the last one without a newline too', async () => {
  const lines: string[] = [];
  const child = await startChild(
    node("process.stdout.write('one\\ntwo'); process.stderr.write('three\\n')", {
      onLine: (line) => lines.push(line),
    }),
  );
  assert.deepEqual(await child.exit, { code: 0, signal: undefined });
  assert.deepEqual([...lines].sort(), ['one', 'three', 'two']);
  assert.deepEqual(child.recentLines(), lines);
});

test('what is held of a talkative child is bounded, and a mark counts from the start', async () => {
  const child = await startChild(node("for (let i = 0; i < 5000; i++) console.log('line ' + i)"));
  await child.exit;
  assert.equal(child.lineCount(), 5000);
  assert.equal(child.recentLines().length, 2000);
  assert.deepEqual(child.linesSince(4998), ['line 4998', 'line 4999']);
  assert.equal(child.linesSince(0).length, 2000);
  assert.deepEqual(child.linesSince(5000), []);
});

test('a child sees only the environment it is given', async () => {
  const child = await startChild(node('console.log(JSON.stringify(process.env))', { env: { ONLY: 'this' } }));
  await child.exit;
  assert.deepEqual(JSON.parse(child.recentLines()[0] ?? ''), { ONLY: 'this' });
});

test('stop ends a child that heeds SIGTERM', async () => {
  const child = await startChild(
    node("process.on('SIGTERM', () => process.exit(3)); setInterval(() => {}, 1000); console.log('up')"),
  );
  await firstLine(child);
  assert.deepEqual(await child.stop(60_000, sleep), { code: 3, signal: undefined });
});

test('stop kills a child that ignores SIGTERM once its grace is over', async () => {
  const child = await startChild(
    node("process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('up')"),
  );
  await firstLine(child);
  assert.deepEqual(await child.stop(1, sleep), { code: undefined, signal: 'SIGKILL' });
  assert.throws(() => process.kill(child.pid, 0), { code: 'ESRCH' });
});

test('stop of a child that has ended gives how it ended', async () => {
  const child = await startChild(node('process.exit(5)'));
  await child.exit;
  assert.deepEqual(await child.stop(60_000, sleep), { code: 5, signal: undefined });
});

test('an exit is told in words', () => {
  assert.equal(describeExit({ code: 1, signal: undefined }), 'exit code 1');
  assert.equal(describeExit({ code: undefined, signal: 'SIGKILL' }), 'signal SIGKILL');
});

async function firstLine(child: Awaited<ReturnType<typeof startChild>>): Promise<void> {
  const signal = AbortSignal.timeout(10_000);
  while (child.lineCount() === 0) await sleep(5, signal);
}
