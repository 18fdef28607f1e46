import assert from 'node:assert/strict';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type TestContext, test } from 'node:test';
import { BundleError } from '../../../../src/policy/bundle/bundle-source.ts';
import { createFileBundleSource } from '../../../../src/policy/bundle/file-bundle-source.ts';
import type { Evaluation } from '../../../../src/policy/policy-engine.ts';
import { createWasmEngine, type WasmEngine } from '../../../../src/policy/wasm/opa-wasm.ts';
import { sleep } from '../../../../src/runtime/abort.ts';
import { type Logger, silentLogger } from '../../../../src/runtime/log.ts';
import { fixtureBundle, labBundle } from '../../../support/bundles.ts';
import { tempDirectory, until } from '../../../support/process.ts';

type Lab = Readonly<{
  engine: WasmEngine;
  file: string;
  /** Messages of the log and counts of the meter. */
  log: string[];
  counts: Record<string, number>;
}>;

const forever = new AbortController().signal;

async function setUp(t: TestContext, options: { timeoutMs?: number; workers?: number } = {}): Promise<Lab> {
  const directory = await tempDirectory(t);
  const file = join(directory, 'bundle.tar.gz');
  const log: string[] = [];
  const counts: Record<string, number> = {};
  const note = (fields: object, message: string): void =>
    void log.push(`${message} ${JSON.stringify(fields)}`);
  const logger: Logger = { debug: note, info: note, warn: note, error: note };
  const count = (name: string): void => void (counts[name] = (counts[name] ?? 0) + 1);
  const engine = createWasmEngine({
    sources: [createFileBundleSource({ name: 'policy', file, sleep })],
    timeoutMs: options.timeoutMs ?? 5_000,
    workers: options.workers,
    now: () => performance.now(),
    epochNow: Date.now,
    sleep,
    random: Math.random,
    log: logger,
    meter: {
      bundleLoaded: (_bundle, outcome) => count(outcome),
      workerReplaced: (how) => count(`replaced ${how}`),
    },
  });
  t.after(() => engine.close());
  return { engine, file, log, counts };
}

async function loaded(t: TestContext, options: { timeoutMs?: number; workers?: number } = {}): Promise<Lab> {
  const lab = await setUp(t, options);
  await writeFile(lab.file, await fixtureBundle('lab'));
  await lab.engine.load(forever);
  return lab;
}

/** Runs the engine until the test ends. */
function running(t: TestContext, engine: WasmEngine): void {
  const stop = new AbortController();
  const run = engine.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await run;
  });
}

/** The new version in the way that tools write files: beside, then renamed. */
async function replaceFile(file: string, bytes: Buffer): Promise<void> {
  await writeFile(`${file}.new`, bytes);
  await rename(`${file}.new`, file);
}

function valueOf(evaluation: Evaluation): unknown {
  assert.equal(evaluation.kind, 'result', JSON.stringify(evaluation));
  return evaluation.kind === 'result' ? evaluation.value : undefined;
}

function failureOf(evaluation: Evaluation): string {
  return evaluation.kind === 'failure'
    ? `${evaluation.reason}: ${evaluation.message}`
    : JSON.stringify(evaluation);
}

const endless = { steps: 100_000 };

test('it allows, denies and tells undefined from both, naming the revision', async (t) => {
  const { engine } = await loaded(t);
  const results = [
    await engine.evaluate('lab/allow', { user: 'alice' }, forever),
    await engine.evaluate('lab/allow', { user: 'bob' }, forever),
    await engine.evaluate('lab/maybe', { user: 'bob' }, forever),
  ];
  assert.deepEqual(results, [
    { kind: 'result', value: true, bundles: { policy: { revision: 'lab-1' } } },
    { kind: 'result', value: false, bundles: { policy: { revision: 'lab-1' } } },
    { kind: 'undefined', bundles: { policy: { revision: 'lab-1' } } },
  ]);
});

test('a path that is no entry point is an engine error that names those there are', async (t) => {
  const { engine } = await loaded(t);
  const message = failureOf(await engine.evaluate('lab/nothing', {}, forever));
  assert.match(
    message,
    /^engine_error: lab\/nothing is no entry point of the policy; it has lab\/all_data, lab\/allow/,
  );
  assert.ok(engine.entrypoints().includes('lab/echo'));
});

test('falsy inputs, large ones and any text reach the policy unchanged', async (t) => {
  const { engine } = await loaded(t);
  const texts = [
    '',
    '\0',
    'ü€😀',
    '"\\ud800',
    '\u2028',
    'x'.repeat(40_000),
    '€'.repeat(20_000),
    'y'.repeat(3_000_000),
  ];
  for (const value of [false, 0, null, '', [], {}, -1.5, { a: { b: [1, 'x'] } }, ...texts]) {
    assert.deepEqual(valueOf(await engine.evaluate('lab/echo', value, forever)), value);
  }
  assert.equal(valueOf(await engine.evaluate('lab/echo', undefined, forever)), null);
});

test('a lone surrogate is an input like any other, as for OPA itself', async (t) => {
  const { engine } = await loaded(t);
  assert.equal(valueOf(await engine.evaluate('lab/echo', 'a\ud800b', forever)), 'a\ufffdb');
});

test('what JSON cannot hold, an abort of the policy and a nesting that exhausts the stack are engine errors', async (t) => {
  const { engine } = await loaded(t);
  const circular: { self?: unknown } = {};
  circular.self = circular;
  const ask = async (path: string, input: unknown): Promise<string> =>
    failureOf(await engine.evaluate(path, input, forever));
  assert.match(await ask('lab/echo', circular), /^engine_error: input cannot be written as JSON/);
  assert.match(await ask('lab/echo', 1n), /^engine_error: input cannot be written as JSON/);
  assert.match(await ask('lab/conflict', { a: 1, b: 1 }), /^engine_error: policy aborted: .*conflict/);
  const deep: unknown = JSON.parse(`${'['.repeat(5_000)}${']'.repeat(5_000)}`);
  assert.match(await ask('lab/echo', deep), /^engine_error/);
  assert.equal(valueOf(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), true);
});

test('a policy that eats memory is stopped at a bound and the next evaluation is fine', async (t) => {
  const { engine } = await loaded(t, { timeoutMs: 60_000 });
  assert.match(
    failureOf(await engine.evaluate('lab/endless', endless, forever)),
    /^engine_error: policy aborted/,
  );
  assert.equal(valueOf(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), true);
});

test('nothing of one evaluation is seen by another, also with many in flight', async (t) => {
  const { engine } = await loaded(t, { workers: 2 });
  const answers = await Promise.all(
    Array.from({ length: 2_000 }, async (_, i) => {
      if (i % 7 === 0)
        return failureOf(await engine.evaluate('lab/conflict', { a: 1, b: 1 }, forever)).slice(0, 12);
      const patterns = [`^u${i}$`, `^u${i + 1}$`];
      return valueOf(await engine.evaluate('lab/matches', { patterns, text: `u${i}` }, forever));
    }),
  );
  for (const [i, answer] of answers.entries())
    assert.deepEqual(answer, i % 7 === 0 ? 'engine_error' : [`^u${i}$`]);
  assert.deepEqual(valueOf(await engine.evaluate('lab/all_data', {}, forever)), ['alice']);
});

test('two hundred thousand evaluations do not make the process grow', async (t) => {
  const { engine } = await loaded(t);
  const evaluateMany = async (total: number): Promise<void> => {
    let next = 0;
    const one = async (): Promise<void> => {
      while (next < total) {
        const user = `user ${next++}`;
        assert.equal(
          valueOf(await engine.evaluate('lab/allow', { user, filler: 'x'.repeat(1_000) }, forever)),
          false,
        );
      }
    };
    await Promise.all(Array.from({ length: 64 }, one));
  };
  await evaluateMany(50_000);
  const grown: number[] = [];
  for (let round = 0; round < 4; round += 1) {
    const before = process.memoryUsage.rss();
    await evaluateMany(50_000);
    grown.push(process.memoryUsage.rss() - before);
  }
  // Three heaps find their sizes when they like, but a leak grows in every round.
  assert.ok(Math.min(...grown) < 15 * 1024 * 1024, `grew by ${grown.join(', ')} bytes`);
});

test('an endless policy costs its Check a timeout and the worker, never the main thread', async (t) => {
  const { engine, counts } = await loaded(t, { timeoutMs: 200 });
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const stuck = await engine.evaluate('lab/endless', endless, forever);
  delay.disable();
  assert.match(failureOf(stuck), /^engine_timeout: policy did not answer within 200 ms/);
  assert.ok(delay.max / 1e6 < 150, `main thread was blocked for ${delay.max / 1e6} ms`);
  assert.equal(counts['replaced timeout'], 1);
  assert.equal(valueOf(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), true);
});

test('Checks queued behind an endless one are answered by the worker that replaces it', async (t) => {
  const { engine, counts } = await loaded(t, { timeoutMs: 200 });
  const stuck = engine.evaluate('lab/endless', endless, forever);
  const queued = Array.from({ length: 200 }, () => engine.evaluate('lab/allow', { user: 'alice' }, forever));
  assert.match(failureOf(await stuck), /^engine_timeout/);
  for (const answer of await Promise.all(queued)) assert.equal(valueOf(answer), true);
  assert.equal(counts['replaced timeout'], 1);
});

test('a Check whose signal fires is a timeout at once, and one not yet begun is not evaluated', async (t) => {
  const { engine, counts } = await loaded(t, { timeoutMs: 400 });
  const stop = new AbortController();
  const checks = Array.from({ length: 100 }, () => engine.evaluate('lab/endless', endless, stop.signal));
  stop.abort();
  for (const check of await Promise.all(checks)) assert.match(failureOf(check), /^engine_timeout/);
  assert.equal(counts['replaced timeout'], undefined);
  assert.equal(valueOf(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), true);
  assert.ok((counts['replaced timeout'] ?? 0) <= 1);
  assert.match(failureOf(await engine.evaluate('lab/allow', {}, stop.signal)), /^engine_timeout/);
});

test('with two workers, one that is stuck does not hold up the other', async (t) => {
  // Time enough for the stuck one to end at the bound on memory: its worker stays, and the second comes when it comes.
  const { engine } = await loaded(t, { timeoutMs: 60_000, workers: 2 });
  const beside = async (): Promise<true | undefined> => {
    const stuck = engine.evaluate('lab/endless', endless, forever);
    const first = await Promise.race([stuck, engine.evaluate('lab/allow', { user: 'alice' }, forever)]);
    await stuck;
    return (first.kind === 'result' && first.value === true) || undefined;
  };
  await until('an answer beside one that is stuck', beside, { timeoutMs: 120_000 });
});

test('those behind a slow evaluation do not wait for it while another worker is free', async (t) => {
  const { engine } = await loaded(t, { timeoutMs: 2_000, workers: 2 });
  await until('all others to be answered first', async () => {
    const slow = engine.evaluate('lab/endless', endless, forever);
    const others = Array.from({ length: 100 }, () =>
      engine.evaluate('lab/allow', { user: 'alice' }, forever),
    );
    const first = await Promise.race([slow, Promise.all(others)]);
    for (const answer of await Promise.all(others)) assert.equal(valueOf(answer), true);
    await slow;
    return Array.isArray(first) || undefined;
  });
});

test('workers that do nothing but hang are replaced ever more slowly', async (t) => {
  const { engine, counts } = await loaded(t, { timeoutMs: 50 });
  const until = performance.now() + 2_000;
  while (performance.now() < until) {
    const stop = new AbortController();
    const check = engine.evaluate('lab/endless', endless, stop.signal);
    await sleep(50, forever);
    stop.abort();
    assert.match(failureOf(await check), /^engine_timeout/);
  }
  const replaced = counts['replaced timeout'] ?? 0;
  assert.ok(replaced >= 2 && replaced <= 15, `replaced ${replaced} times`);
});

test('a bundle that needs a missing built-in is refused by the name of the built-in', async (t) => {
  const { engine, file } = await setUp(t);
  await writeFile(file, await fixtureBundle('clock'));
  await assert.rejects(engine.load(forever), (error) => {
    assert.ok(error instanceof BundleError);
    assert.equal(error.code, 'malformed');
    assert.match(error.message, /built-ins that are not available here: http\.send$/);
    return true;
  });
  assert.equal(engine.ready(), false);
  assert.match(
    failureOf(await engine.evaluate('clock/now', {}, forever)),
    /^engine_unavailable: no policy is loaded: policy calls/,
  );
});

test('data that is not a JSON object is refused', async (t) => {
  const { engine, file } = await setUp(t);
  for (const data of ['', '{', '[]', '1', '{} {}']) {
    await writeFile(file, await labBundle({ 'data.json': data }));
    await assert.rejects(
      engine.load(forever),
      /data\.json of the bundle is not JSON|not a JSON object/,
      data,
    );
  }
});

test('a missing file is unavailable, and the engine is ready once it appears', async (t) => {
  const { engine, file, log } = await setUp(t);
  await assert.rejects(engine.load(forever), { name: 'BundleError', code: 'unavailable', bundle: 'policy' });
  running(t, engine);
  await until(
    'the complaint',
    () => log.some((line) => line.startsWith('policy cannot be activated')) || undefined,
  );
  assert.equal(engine.ready(), false);
  assert.match(engine.problem() ?? '', /does not exist/);
  await replaceFile(file, await fixtureBundle('lab'));
  await until('readiness', () => engine.ready() || undefined);
  assert.equal(engine.problem(), undefined);
});

test('a new version is activated, no Check sees a mixture, and the revision changes', async (t) => {
  const { engine, file, counts } = await setUp(t);
  await writeFile(
    file,
    await labBundle({ 'data.json': '{"users":["alice"]}', '.manifest': '{"revision":"one"}' }),
  );
  running(t, engine);
  await until('readiness', () => engine.ready() || undefined);
  const before = engine.revision();
  const over = new AbortController();
  const seen = new Set<string>();
  const check = async (): Promise<void> => {
    while (!over.signal.aborted) {
      const answer = await engine.evaluate('lab/all_data', {}, forever);
      assert.equal(answer.kind, 'result', failureOf(answer));
      if (answer.kind === 'result')
        seen.add(`${answer.bundles?.['policy']?.revision} ${JSON.stringify(answer.value)}`);
    }
  };
  const checks = Array.from({ length: 32 }, check);
  await replaceFile(
    file,
    await labBundle({ 'data.json': '{"users":["bob"]}', '.manifest': '{"revision":"two"}' }),
  );
  await until('activation', () => engine.revision() !== before || undefined);
  await until('the new answer', () => seen.has('two ["bob"]') || undefined);
  over.abort();
  await Promise.all(checks);
  assert.deepEqual([...seen].sort(), ['one ["alice"]', 'two ["bob"]']);
  assert.deepEqual(counts, { activated: 2 });
});

test('a broken new version keeps the last good one in force, says why, and a good one follows', async (t) => {
  const { engine, file, log, counts } = await setUp(t);
  await writeFile(file, await fixtureBundle('lab'));
  running(t, engine);
  await until('readiness', () => engine.ready() || undefined);
  const revision = engine.revision();
  for (const broken of [
    Buffer.from('broken'),
    await labBundle({ 'data.json': '[' }),
    await fixtureBundle('clock'),
  ]) {
    const refused = counts['refused'] ?? 0;
    await replaceFile(file, broken);
    await until('the refusal', () => counts['refused'] === refused + 1 || undefined);
    assert.equal(engine.revision(), revision);
    assert.equal(valueOf(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), true);
  }
  await rm(file);
  await until('the refusal', () => counts['refused'] === 4 || undefined);
  assert.equal(engine.ready(), true);
  assert.equal(
    log.filter((line) => line.startsWith('new policy refused; the last good one stays')).length,
    4,
  );
  await replaceFile(file, await labBundle({ 'data.json': '{"users":[]}' }));
  await until('activation', () => engine.revision() !== revision || undefined);
  assert.equal(valueOf(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), false);
});

test('a symbolic link of a directory above that is switched, as in Kubernetes, is a new version', async (t) => {
  const { file } = await setUp(t);
  const mount = join(file, '..', 'mount');
  for (const [name, user] of [
    ['v1', 'alice'],
    ['v2', 'bob'],
  ] as const) {
    await mkdir(join(mount, name), { recursive: true });
    await writeFile(join(mount, name, 'b.tar.gz'), await labBundle({ 'data.json': `{"users":["${user}"]}` }));
  }
  await symlink('v1', join(mount, 'current'));
  await symlink('current/b.tar.gz', join(mount, 'b.tar.gz'));
  const engine = createWasmEngine({
    sources: [createFileBundleSource({ name: 'policy', file: join(mount, 'b.tar.gz'), sleep })],
    timeoutMs: 5_000,
    now: () => performance.now(),
    epochNow: Date.now,
    sleep,
    random: Math.random,
    log: silentLogger,
    meter: { bundleLoaded() {}, workerReplaced() {} },
  });
  running(t, engine);
  await until('readiness', () => engine.ready() || undefined);
  assert.deepEqual(valueOf(await engine.evaluate('lab/all_data', {}, forever)), ['alice']);
  const before = engine.revision();
  await symlink('v2', join(mount, 'next'));
  await rename(join(mount, 'next'), join(mount, 'current'));
  await until('activation', () => engine.revision() !== before || undefined);
  assert.deepEqual(valueOf(await engine.evaluate('lab/all_data', {}, forever)), ['bob']);
});

test('after the signal of run, Checks are failures and no thread is left', async (t) => {
  const { engine, file } = await setUp(t);
  await writeFile(file, await fixtureBundle('lab'));
  const stop = new AbortController();
  const run = engine.run(stop.signal);
  await until('readiness', () => engine.ready() || undefined);
  const waiting = engine.evaluate('lab/endless', endless, forever);
  stop.abort();
  await run;
  assert.match(failureOf(await waiting), /^engine_unavailable: policy engine is closed/);
  assert.match(failureOf(await engine.evaluate('lab/allow', {}, forever)), /^engine_unavailable/);
  assert.equal(engine.ready(), false);
  await until(
    'the end of the threads',
    () => !process.getActiveResourcesInfo().includes('MessagePort') || undefined,
  );
});
