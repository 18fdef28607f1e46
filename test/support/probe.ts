import { once } from 'node:events';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { tempDirectory } from './process.ts';
import type { SidecarOptions } from './sidecar.ts';

/** What a process under test costs, from inside it. */
export type Cost = Readonly<{
  /** CPU time of the main thread so far, in milliseconds. */
  cpuMs: number;
  /** The longest that its event loop was late since the last look, in milliseconds; other processes have a part in it. */
  longestTurnMs: number;
  memory: Readonly<{ rss: number; heapUsed: number; external: number; arrayBuffers: number }>;
  threads: number;
  fds: number;
  /** What keeps the event loop alive, by type. */
  resources: readonly string[];
}>;

export type Probe = Readonly<{
  /** To start the process with. */
  with: Pick<SidecarOptions, 'env' | 'nodeArgs'>;
  /** `settled`: after garbage was collected. */
  look(how?: 'settled'): Promise<Cost>;
}>;

/** A look into one sidecar process, which is otherwise as always. */
export async function createProbe(t: TestContext): Promise<Probe> {
  const path = join(await tempDirectory(t), 'probe.sock');
  return {
    with: {
      nodeArgs: ['--import', join(import.meta.dirname, 'probe-inside.ts')],
      env: { PROBE_SOCKET: path },
    },
    async look(how) {
      const socket = createConnection(path);
      await once(socket, 'connect');
      socket.write(how ?? 'as it is');
      return JSON.parse(await text(socket)) as Cost;
    },
  };
}
