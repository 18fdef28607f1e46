import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBundle } from '../../../../src/policy/bundle/bundle.ts';
import { loadWasmPolicy, type WasmPolicy } from '../../../../src/policy/wasm/wasm-policy.ts';
import { MalformedError } from '../../../../src/runtime/errors.ts';
import { fixtureBundle } from '../../../support/bundles.ts';
import { moduleWithTables } from '../../../support/wasm-module.ts';

async function load(
  maxMemoryBytes = 64 * 1024 * 1024,
): Promise<(decision: string, input: unknown) => string> {
  const { modules, data } = await parseBundle(await fixtureBundle('lab'));
  const [{ module } = assert.fail('no policy')] = modules;
  const policy: WasmPolicy = loadWasmPolicy(
    { module, data, maxMemoryBytes },
    { now: Date.now, random: Math.random },
  );
  return (decision, input) => {
    const entrypoint = policy.entrypoints.get(decision);
    assert.ok(entrypoint !== undefined);
    return Buffer.from(policy.evaluate(entrypoint, Buffer.from(JSON.stringify(input)))).toString();
  };
}

test('a result set is JSON text, empty for undefined', async () => {
  const evaluate = await load();
  assert.equal(evaluate('lab/allow', { user: 'alice' }), '[{"result":true}]');
  assert.equal(evaluate('lab/maybe', { user: 'bob' }), '[]');
});

test('built-ins that the runtime package supplies work', async () => {
  const evaluate = await load();
  assert.equal(evaluate('lab/greeting', { user: 'bob' }), '[{"result":"hello bob"}]');
});

test('ten thousand aborts leave an instance that still works, in bounded memory', async () => {
  const evaluate = await load();
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 10_000; i++)
    assert.throws(() => evaluate('lab/conflict', { a: 1, b: 1 }), MalformedError);
  assert.equal(evaluate('lab/allow', { user: 'alice' }), '[{"result":true}]');
  assert.ok(process.memoryUsage.rss() - before < 300 * 1024 * 1024);
});

test('data that does not fit the memory is refused as such', async () => {
  const { modules } = await parseBundle(await fixtureBundle('lab'));
  const [{ module } = assert.fail('no policy')] = modules;
  const data = Buffer.from(JSON.stringify({ users: Array(100_000).fill(0) }));
  assert.throws(
    () =>
      loadWasmPolicy({ module, data, maxMemoryBytes: 1024 * 1024 }, { now: Date.now, random: Math.random }),
    { code: 'limit_exceeded', message: /^data of 200011 bytes does not fit in the memory/ },
  );
});

test('an input that does not fit the memory is refused, and the next one is evaluated', async () => {
  const evaluate = await load(1024 * 1024);
  assert.throws(() => evaluate('lab/echo', 'x'.repeat(2_000_000)), MalformedError);
  assert.equal(evaluate('lab/echo', 'x'), '[{"result":"x"}]');
});

test('a result of more than 4 MiB is refused, and the next one is given', async () => {
  const evaluate = await load();
  const most = 'x'.repeat(4 * 1024 * 1024 - '[{"result":""}]'.length);
  assert.equal(evaluate('lab/echo', most), `[{"result":"${most}"}]`);
  assert.throws(() => evaluate('lab/echo', `${most}x`), /longer than 4194304 bytes/);
  assert.equal(evaluate('lab/echo', 'x'), '[{"result":"x"}]');
});

test('a table that a module hands out is refused beyond 1 MiB, before it is parsed', async () => {
  const loading = async (entrypoints: string, builtins: string) =>
    loadWasmPolicy(
      {
        module: await moduleWithTables(entrypoints, builtins),
        data: Buffer.from('{}'),
        maxMemoryBytes: 64 * 1024 * 1024,
      },
      { now: Date.now, random: Math.random },
    );
  const path = 'x'.repeat(1024 * 1024 - '{"":0}'.length);
  assert.deepEqual([...(await loading(`{"${path}":0}`, '{}')).entrypoints], [[path, 0]]);
  // Not JSON, which would be found first by whoever parses.
  const long = '['.repeat(1024 * 1024 + 1);
  const refusal = (what: string) => ({
    code: 'limit_exceeded',
    message: `table of ${what} in policy.wasm is longer than 1048576 bytes`,
  });
  await assert.rejects(loading(long, '{}'), refusal('entry points'));
  await assert.rejects(loading('{}', long), refusal('built-ins'));
  await assert.rejects(loading('{', '{}'), { code: 'malformed' });
});
