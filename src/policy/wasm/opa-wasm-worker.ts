import { randomInt } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../../runtime/errors.ts';
import { type ChannelMemory, serveChannel } from './wasm-channel.ts';
import { loadWasmPolicies, type WasmPoliciesSource } from './wasm-policies.ts';

/** What a policy worker is started with. */
export type PolicyWorkerData = Readonly<{ source: WasmPoliciesSource; memory: ChannelMemory }>;

/** What a policy worker says once, after loading. */
export type PolicyWorkerNews =
  | Readonly<{ kind: 'ready'; entrypoints: ReadonlyMap<string, number> }>
  | Readonly<{ kind: 'refused'; message: string }>;

const { source, memory } = workerData as PolicyWorkerData;

function tell(news: PolicyWorkerNews): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is about windows
  parentPort?.postMessage(news);
}

/** What a policy draws may be a secret of its: who sees some of Math.random knows the rest. */
function secureRandom(): number {
  return randomInt(2 ** 47) / 2 ** 47;
}

try {
  const policy = loadWasmPolicies(source, { now: Date.now, random: secureRandom });
  tell({ kind: 'ready', entrypoints: policy.entrypoints });
  serveChannel(memory, (entrypoint, input) => policy.evaluate(entrypoint, input));
} catch (error) {
  tell({ kind: 'refused', message: messageOf(error) });
}
