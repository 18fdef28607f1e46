import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { startProcess, type TestProcess } from './process.ts';
import type { SpireHost } from './spire-host.ts';

const run = promisify(execFile);

/** SPIRE's programs as processes of this machine; undefined when `find` does not have both. */
export async function spireFromPath(
  find: (name: string) => Promise<string | undefined>,
): Promise<SpireHost | undefined> {
  const [server, agent] = [await find('spire-server'), await find('spire-agent')];
  if (server === undefined || agent === undefined) return undefined;
  return {
    async start(t, { program, args }) {
      const path = program === 'spire-server' ? server : agent;
      const start = (): Promise<TestProcess> => startProcess(t, { name: program, command: path, args });
      let running = await start();
      return {
        async command(...command) {
          if (running.exited() !== undefined) {
            throw new Error(`${program} has ended:\n${running.recentLines().slice(-20).join('\n')}`);
          }
          return (await run(path, command, { timeout: 10_000 })).stdout;
        },
        async restart() {
          await running.stop();
          running = await start();
        },
      };
    },
  };
}
