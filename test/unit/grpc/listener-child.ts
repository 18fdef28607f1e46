// A process that serves at the path it is given and says so; for tests that kill one.
import { listenUnix } from '../../../src/grpc/listener.ts';

const [path = '', start = '0'] = process.argv.slice(2);
await new Promise((resolve) => setTimeout(resolve, Math.max(0, Number(start) - Date.now())));
try {
  await listenUnix({ path, mode: 0o600, maxConnections: 10 }, (socket) => {
    // Whoever looks whether the socket is served hangs up at once.
    socket.on('error', () => {});
    socket.end(`${process.pid}`);
  });
  process.stdout.write('listening\n');
} catch (error) {
  process.stdout.write(`${error instanceof Error ? error.message : String(error)}\n`);
}
