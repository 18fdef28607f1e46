import { workerData } from 'node:worker_threads';
import { type ChannelMemory, serveChannel } from '../../../../src/policy/wasm/wasm-channel.ts';

// The other side of wasm-channel.test.ts: answers with the input itself, twice for entry point 2, throws for 3.
serveChannel(workerData as ChannelMemory, (entrypoint, input) => {
  if (entrypoint === 3) throw new Error(`cannot evaluate ${input.byteLength} bytes`);
  return entrypoint === 2 ? Buffer.concat([input, input]) : Uint8Array.from(input);
});
