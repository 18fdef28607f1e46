import type { Server, Socket } from 'node:net';

export interface ConnectionRoom {
  /** Keeps a connection from giving way until the function that it returns is called. */
  use(socket: Socket): () => void;
}

/**
 * Bounds the connections of a server: of more than `max` that are not in use the oldest gives way, so whoever opens many
 * and says nothing shuts nobody out. Altogether there are at most twice as many.
 */
export function createConnectionRoom(server: Server, max: number): ConnectionRoom {
  const unused = new Set<Socket>();
  server.maxConnections = 2 * max;

  function add(socket: Socket): void {
    if (socket.destroyed) return;
    unused.add(socket);
    const [oldest] = unused;
    if (unused.size <= max || oldest === undefined) return;
    unused.delete(oldest);
    oldest.destroy();
  }

  server.on('connection', (socket: Socket) => {
    socket.once('close', () => unused.delete(socket));
    add(socket);
  });
  return Object.freeze({
    use(socket: Socket) {
      unused.delete(socket);
      return () => add(socket);
    },
  });
}
