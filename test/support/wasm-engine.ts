import type { TestContext } from 'node:test';
import { createFileBundleSource } from '../../src/policy/bundle/file-bundle-source.ts';
import type { PolicyEngine } from '../../src/policy/policy-engine.ts';
import { createWasmEngine } from '../../src/policy/wasm/opa-wasm.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';

/** The policy of one bundle file, in force until the test ends. */
export async function loadWasmEngine(t: TestContext, file: string, timeoutMs: number): Promise<PolicyEngine> {
  const engine = createWasmEngine({
    sources: [createFileBundleSource({ name: 'policy', file, sleep })],
    timeoutMs,
    now: () => performance.now(),
    epochNow: Date.now,
    sleep,
    random: Math.random,
    log: silentLogger,
    meter: { bundleLoaded() {}, workerReplaced() {} },
  });
  t.after(() => engine.close());
  await engine.load(new AbortController().signal);
  return engine;
}
