import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { parseValue, type Value } from '../../src/policy/builtins/value.ts';
import { parseBundle } from '../../src/policy/bundle/bundle.ts';
import { loadWasmPolicy } from '../../src/policy/wasm/wasm-policy.ts';
import { opaPath } from '../support/binaries.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { tempDirectory } from '../support/process.ts';

const run = promisify(execFile);

/**
 * `data.cases.results`, an object, as our engine and as a real OPA evaluate it, with numbers as they are written. OPA has
 * the whole input; our engine one piece after another, because it bounds a result.
 */
export async function evaluateWithBoth(
  t: TestContext,
  policy: string,
  inputDocument: object,
  pieces: readonly object[] = [inputDocument],
): Promise<{ ours: readonly ReadonlyMap<Value, Value>[]; theirs: ReadonlyMap<Value, Value> }> {
  const directory = await tempDirectory(t);
  const bundle = join(directory, 'bundle.tar.gz');
  const input = join(directory, 'input.json');
  await writeFile(join(directory, 'cases.rego'), policy);
  await writeFile(input, JSON.stringify(inputDocument));
  await buildWasmBundle(t, { files: { 'cases.rego': policy }, entrypoints: ['cases/results'], into: bundle });

  const { modules, data } = await parseBundle(await readFile(bundle));
  const [{ module } = assert.fail('no policy')] = modules;
  const wasm = loadWasmPolicy(
    { module, data, maxMemoryBytes: 512 * 1024 * 1024 },
    { now: Date.now, random: Math.random },
  );
  const entrypoint = wasm.entrypoints.get('cases/results') ?? 0;
  const ours = pieces.map((piece) =>
    resultsOf(Buffer.from(wasm.evaluate(entrypoint, Buffer.from(JSON.stringify(piece)))).toString()),
  );

  const { stdout } = await run(
    await opaPath(),
    [
      'eval',
      '--format=raw',
      `--data=${join(directory, 'cases.rego')}`,
      `--input=${input}`,
      '[{"result": data.cases.results}]',
    ],
    { maxBuffer: 512 * 1024 * 1024 },
  );
  return { ours, theirs: resultsOf(stdout.trim()) };
}

/** `[{"result": {…}}]` */
function resultsOf(text: string): ReadonlyMap<Value, Value> {
  const [first] = parseValue(text) as readonly ReadonlyMap<Value, Value>[];
  return first?.get('result') as ReadonlyMap<Value, Value>;
}
