import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBundle } from '../../../../src/policy/bundle/bundle.ts';
import type { WasmPoliciesSource } from '../../../../src/policy/wasm/wasm-policies.ts';
import { startWasmPool } from '../../../../src/policy/wasm/wasm-pool.ts';
import { sleep } from '../../../../src/runtime/abort.ts';
import { silentLogger } from '../../../../src/runtime/log.ts';
import { fixtureBundle } from '../../../support/bundles.ts';

const forever = new AbortController().signal;

test('a worker that cannot start is tried ever more slowly, whatever the other answers meanwhile', async (t) => {
  const { modules, data } = await parseBundle(await fixtureBundle('lab'));
  const good = { modules: modules.map(({ module }) => module), data, maxMemoryBytes: 64 * 1024 * 1024 };
  const starts: WasmPoliciesSource[] = [];
  const pauses: number[] = [];
  const pool = await startWasmPool(
    {
      // Read once for each start.
      get source(): WasmPoliciesSource {
        starts.push(starts.length === 0 ? good : { ...good, maxMemoryBytes: 0 });
        return starts.at(-1) ?? good;
      },
      workers: 2,
      timeoutMs: 60_000,
      startTimeoutMs: 60_000,
      now: () => performance.now(),
      sleep(ms, signal) {
        const isPause = ms <= 5_000;
        if (isPause) pauses.push(ms);
        return sleep(isPause ? 1 : ms, signal);
      },
      random: () => 1,
      log: silentLogger,
      onReplaced: assert.fail,
    },
    forever,
  );
  t.after(() => pool.close());
  while (pauses.length < 5 && starts.length < 30) {
    const answer = await pool.run('lab/allow', '{"user":"alice"}', forever);
    assert.deepEqual(answer, { kind: 'result', text: '[{"result":true}]' });
  }
  assert.deepEqual(pauses.slice(0, 5), [100, 200, 400, 800, 1_600]);
});
