import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createHttpClient } from '../../src/http/client.ts';
import { createOpaApi } from '../../src/policy/opa/opa-api.ts';
import { createOpaRestEngine, type OpaRestEngine } from '../../src/policy/opa/opa-rest.ts';
import type { Evaluation } from '../../src/policy/policy-engine.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { opaPath } from '../support/binaries.ts';
import { unpackBundle } from '../support/bundles.ts';
import { type Opa, startOpa } from '../support/opa.ts';
import { runProcess, tempDirectory } from '../support/process.ts';
import { loadWasmEngine } from '../support/wasm-engine.ts';

const forever = new AbortController().signal;
const quickstart = join(import.meta.dirname, '../../examples/quickstart/policy');
const fixtures = join(import.meta.dirname, '../fixtures/policy');

function restEngine(t: TestContext, opa: Opa): OpaRestEngine {
  const http = createHttpClient({ maxSockets: 16 });
  t.after(() => http.close());
  return createOpaRestEngine({
    api: createOpaApi({ url: opa.url, http }),
    timeoutMs: 5_000,
    log: silentLogger,
  });
}

async function labFiles(): Promise<Record<string, string>> {
  const read = (name: string): Promise<string> => readFile(join(fixtures, name), 'utf8');
  return { 'lab.rego': await read('lab.rego'), 'data.json': await read('data.json') };
}

function outcome(evaluation: Evaluation): unknown {
  if (evaluation.kind === 'result') return evaluation.value;
  return evaluation.kind === 'undefined' ? 'undefined' : evaluation.reason;
}

for (const over of ['tcp', 'unix'] as const) {
  test(`a real OPA over ${over} answers, is undefined, fails and is found dead and alive again`, async (t) => {
    const opa = await startOpa(t, { over, files: await labFiles() });
    const engine = restEngine(t, opa);
    const ask = async (path: string, input: unknown): Promise<unknown> =>
      outcome(await engine.evaluate(path, input, forever));
    await engine.probe(forever);
    assert.equal(await ask('lab/allow', { user: 'alice' }), true);
    assert.equal(await ask('lab/allow', { user: 'bob' }), false);
    assert.equal(await ask('lab/maybe', { user: 'bob' }), 'undefined');
    assert.equal(await ask('lab/no/such rule', {}), 'undefined');
    const conflict = await engine.evaluate('lab/conflict', { a: 1, b: 1 }, forever);
    assert.match(conflict.kind === 'failure' ? conflict.message : '', /HTTP status 500: .*evaluating query/);
    assert.equal(outcome(conflict), 'engine_error');

    await opa.process.crash();
    assert.equal(await ask('lab/allow', { user: 'alice' }), 'engine_unavailable');
    await assert.rejects(engine.probe(forever));
    await opa.restart();
    assert.equal(await ask('lab/allow', { user: 'alice' }), true);
  });
}

test('an endless evaluation in a real OPA is a timeout and the next one is answered', async (t) => {
  const engine = restEngine(t, await startOpa(t, { over: 'unix', files: await labFiles() }));
  const endless = await engine.evaluate('lab/endless', { steps: 100_000 }, AbortSignal.timeout(200));
  assert.equal(outcome(endless), 'engine_timeout');
  assert.equal(outcome(await engine.evaluate('lab/allow', { user: 'alice' }, forever)), true);
});

test('both engines decide alike with the policy of the quick start', async (t) => {
  const read = (name: string): Promise<string> => readFile(join(quickstart, name), 'utf8');
  const files = { 'authz.rego': await read('authz.rego'), 'data.json': await read('data.json') };
  const rest = restEngine(t, await startOpa(t, { over: 'tcp', files }));
  const wasm = await loadWasmEngine(t, join(quickstart, 'bundle.tar.gz'), 5_000);
  const input = (peer: string, method: string, path: string): unknown => ({
    attributes: { request: { http: { method, path } } },
    parsed_path: path.slice(1).split('/'),
    spiffe: { source: { id: peer } },
  });
  const table: readonly (readonly [unknown, boolean])[] = [
    [input('spiffe://dev.local/service/web', 'GET', '/hello'), true],
    [input('spiffe://dev.local/service/web', 'GET', '/api/orders/1'), true],
    [input('spiffe://dev.local/service/web', 'POST', '/hello'), false],
    [input('spiffe://dev.local/service/web', 'GET', '/admin'), false],
    [input('spiffe://dev.local/service/other', 'GET', '/hello'), false],
    [input('spiffe://dev.local/service/admin', 'DELETE', '/any/thing'), true],
    [{}, false],
  ];
  for (const [document, allowed] of table) {
    const values = [rest, wasm].map(async (engine) =>
      outcome(await engine.evaluate('envoy/authz/allow', document, forever)),
    );
    const [fromRest, fromWasm] = await Promise.all(values);
    assert.deepEqual(fromWasm, fromRest);
    assert.equal((fromRest as { allowed: boolean }).allowed, allowed, JSON.stringify(document));
  }
});

type Prebuilt = Readonly<{
  directory: string;
  bundle: string;
  sources: readonly string[];
  args: readonly string[];
}>;

const prebuilt: readonly Prebuilt[] = [
  {
    directory: quickstart,
    bundle: 'bundle.tar.gz',
    sources: ['authz.rego', 'data.json'],
    args: ['-e', 'envoy/authz/allow', '-r', 'quickstart-1'],
  },
  {
    directory: fixtures,
    bundle: 'lab.tar.gz',
    sources: ['lab.rego', 'data.json'],
    args: [
      ...['allow', 'maybe', 'echo', 'all_data', 'conflict', 'endless', 'matches', 'greeting'].flatMap(
        (rule) => ['-e', `lab/${rule}`],
      ),
      '-r',
      'lab-1',
    ],
  },
  {
    directory: fixtures,
    bundle: 'clock.tar.gz',
    sources: ['clock.rego'],
    args: ['-e', 'clock/now', '-e', 'clock/answer'],
  },
];

for (const { directory, bundle, sources, args } of prebuilt) {
  test(`opa build gives the same ${bundle} as the one in the repository`, async (t) => {
    const into = join(await tempDirectory(t), bundle);
    const built = await runProcess(t, {
      name: 'opa build',
      command: await opaPath(),
      args: ['build', '-t', 'wasm', ...args, '-o', into, ...sources],
      cwd: directory,
    });
    assert.equal(built.code, 0, built.output);
    const now = unpackBundle(await readFile(into));
    const before = unpackBundle(await readFile(join(directory, bundle)));
    assert.deepEqual([...now.keys()].sort(), [...before.keys()].sort());
    for (const [path, bytes] of now) assert.ok(before.get(path)?.equals(bytes), path);
  });
}
