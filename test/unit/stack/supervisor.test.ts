import assert from 'node:assert/strict';
import process from 'node:process';
import { test } from 'node:test';
import { aborted, sleep } from '../../../src/runtime/abort.ts';
import { AbortedError, AppError, TimeoutError, UnavailableError } from '../../../src/runtime/errors.ts';
import type { Child } from '../../../src/stack/child.ts';
import { runStack, type ServiceSpec } from '../../../src/stack/supervisor.ts';

const options = { graceMs: 10_000, sleep };
const never = new AbortController().signal;
const IDLE = 'setInterval(() => {}, 1000)';

function service(name: string, script = IDLE, more: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    name,
    command: process.execPath,
    args: ['-e', script],
    env: {},
    ready: () => Promise.resolve(true),
    readyTimeoutMs: 10_000,
    ...more,
  };
}

const isGone = (child: Child): boolean => child.exited() !== undefined;

test('the children are stopped in the reverse order of their start, after the work is done', async () => {
  const ended: string[] = [];
  const result = await runStack(options, never, async (stack) => {
    for (const name of ['one', 'two', 'three']) {
      const child = await stack.start(service(name));
      void child.exit.then(() => ended.push(name));
    }
    assert.deepEqual(ended, []);
    return 7;
  });
  assert.equal(result, 7);
  assert.deepEqual(ended, ['three', 'two', 'one']);
});

test('a start resolves only once the service is ready, and a probe that throws is asked again', async () => {
  let asked = 0;
  const ready = (): Promise<boolean> => {
    asked += 1;
    return asked === 1 ? Promise.reject(new Error('refused')) : Promise.resolve(asked === 3);
  };
  await runStack(options, never, async (stack) => {
    await stack.start(service('slow', IDLE, { ready }));
    assert.equal(asked, 3);
  });
});

test('a service that is never ready is a timeout that tells the last failure, and leaves nothing behind', async () => {
  const children: Child[] = [];
  const running = runStack(options, never, async (stack) => {
    children.push(await stack.start(service('good')));
    const ready = (): Promise<boolean> => Promise.reject(new Error('connection refused'));
    await stack.start(service('bad', IDLE, { ready, readyTimeoutMs: 100 }));
  });
  await assert.rejects(running, (error) => {
    assert.ok(error instanceof TimeoutError);
    assert.equal(error.message, 'waited 100 ms for bad to be ready: connection refused');
    return true;
  });
  assert.ok(children.length === 1 && children.every(isGone));
});

test('a child that ends by itself aborts the work; the error has its name, how it ended and what it said last', async () => {
  const children: Child[] = [];
  const running = runStack(options, never, async (stack, signal) => {
    children.push(await stack.start(service('good')));
    children.push(await stack.start(service('bad', "console.log('out of luck'); process.exit(9)")));
    await aborted(signal);
    throw new AbortedError();
  });
  await assert.rejects(running, (error) => {
    assert.ok(error instanceof UnavailableError);
    assert.match(error.message, /^bad ended by itself \(exit code 9\); it said last:\n {2}out of luck$/);
    return true;
  });
  assert.ok(children.every(isGone));
});

test('a child that ends while it is waited for is told as such and not as a timeout', async () => {
  const ready = (): Promise<boolean> => Promise.resolve(false);
  const running = runStack(options, never, (stack) =>
    stack.start(service('bad', 'process.exit(2)', { ready })),
  );
  await assert.rejects(running, /bad ended by itself \(exit code 2\)/);
});

test('when the signal fires every child is stopped before the error comes out', async () => {
  const controller = new AbortController();
  const children: Child[] = [];
  const running = runStack(options, controller.signal, async (stack, signal) => {
    children.push(await stack.start(service('one')));
    controller.abort();
    await sleep(60_000, signal);
  });
  await assert.rejects(running, AbortedError);
  assert.ok(children.length === 1 && children.every(isGone));
});

test('a child that a Ctrl-C ends before our own signal fires is no failure', async () => {
  const controller = new AbortController();
  const running = runStack(options, controller.signal, async (stack, signal) => {
    const child = await stack.start(service('one'));
    child.kill('SIGINT');
    await child.exit;
    controller.abort();
    await sleep(60_000, signal);
  });
  await assert.rejects(running, AbortedError);
});

test('starts that run side by side leave nothing behind when one of them fails', async () => {
  const pids: number[] = [];
  const running = runStack(options, never, (stack) =>
    Promise.all([
      stack.start(service('bad', 'process.exit(2)', { ready: () => Promise.resolve(false) })),
      ...['one', 'two'].map((name) =>
        stack.start(
          service(name, `console.log(process.pid); ${IDLE}`, {
            ready: () => Promise.resolve(false),
            onLine: (line) => pids.push(Number(line)),
          }),
        ),
      ),
    ]),
  );
  await assert.rejects(running, /bad ended by itself/);
  for (const pid of pids) assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
});

test('a child stopped on purpose is no failure', async () => {
  await runStack(options, never, async (stack, signal) => {
    const child = await stack.start(service('one'));
    await stack.stop(child);
    assert.ok(isGone(child));
    assert.equal(signal.aborted, false);
  });
});

test('the error of the work itself comes out, as an AppError', async () => {
  const running = runStack(options, never, () => Promise.reject(new Error('the work failed')));
  await assert.rejects(running, (error) => error instanceof AppError && error.message === 'the work failed');
});
