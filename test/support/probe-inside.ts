// Loaded with --import into a process under test: tells, over the socket PROBE_SOCKET, what the process costs.
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import process from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isMainThread } from 'node:worker_threads';

const path = process.env['PROBE_SOCKET'];

if (isMainThread && path !== undefined) {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const count = (directory: string): number => readdirSync(directory).length;
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (command) => {
      // Finalizers of what the first one frees run between the two.
      if (command.toString() === 'settled') {
        gc();
        setImmediate(() => {
          gc();
          answer();
        });
      } else answer();
    });
    function answer(): void {
      const { user, system } = process.threadCpuUsage();
      socket.end(
        JSON.stringify({
          cpuMs: (user + system) / 1e3,
          longestTurnMs: delay.max / 1e6,
          memory: process.memoryUsage(),
          threads: count('/proc/self/task'),
          fds: count('/proc/self/fd'),
          resources: process.getActiveResourcesInfo(),
        }),
      );
      delay.reset();
    }
  });
  server.listen(path);
  server.unref();
}
