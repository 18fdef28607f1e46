import { chmod, lstat, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { AppError, errnoOf, messageOf } from '../runtime/errors.ts';
import { maxSocketPathBytes } from '../runtime/socket-address.ts';
import { probeSocket, withSocketLock } from './socket-lock.ts';

/** A socket that accepts connections until `close`, which leaves those already accepted alone. */
export type Listener = Readonly<{ port: number | undefined; close(): Promise<void> }>;

type Accept = (socket: Socket) => void;

const keepAliveMs = 60_000;

/** Listens at a host and port; port 0 lets the system pick one. */
export async function listenTcp(
  { host, port, maxConnections }: Readonly<{ host: string; port: number; maxConnections: number }>,
  accept: Accept,
): Promise<Listener> {
  // A peer whose machine is gone says nothing, and would keep its place among the connections.
  const server = createServer({ keepAlive: true, keepAliveInitialDelay: keepAliveMs }, accept);
  server.maxConnections = maxConnections;
  try {
    await listening(server, { host, port, exclusive: true });
  } catch (error) {
    throw tcpError(error, host, port);
  }
  const address = server.address();
  return Object.freeze({
    port: address === null || typeof address === 'string' ? undefined : address.port,
    close: async () => stopListening(server),
  });
}

export type UnixListenOptions = Readonly<{
  path: string;
  mode: number;
  maxConnections: number;
  allowStickyParent?: boolean;
}>;

/**
 * Listens at a unix socket. The socket is made inside a private directory beside its place, given its mode and moved
 * into place, so that nobody connects before the mode is right. A socket that nobody serves any more is replaced, one
 * that is served never is; starters of the same directory take turns. On close it is unlinked if it still is ours.
 */
export async function listenUnix(options: UnixListenOptions, accept: Accept): Promise<Listener> {
  const { path, mode, maxConnections } = options;
  const directory = dirname(path);
  requireShortPath(path, directory);
  const server = createServer(accept);
  server.maxConnections = maxConnections;
  let privateDirectory: string | undefined;
  try {
    privateDirectory = await mkdtemp(join(directory, '.s'));
    await requireSafeParent(
      directory,
      (await stat(privateDirectory)).uid,
      options.allowStickyParent ?? false,
    );
    const socket = join(privateDirectory, 's');
    await listening(server, { path: socket, backlog: 4096 });
    await chmod(socket, mode);
    const { dev, ino } = await lstat(socket);
    await withSocketLock(socket, join(directory, '.svidecar'), async () => {
      await requireFree(path);
      await rename(socket, path);
    });
    return Object.freeze({
      port: undefined,
      async close() {
        if (!server.listening) return;
        // First the name, then the socket: as long as it is served, nobody puts another one in its place.
        await unlinkIfOurs(path, dev, ino);
        stopListening(server);
      },
    });
  } catch (error) {
    stopListening(server);
    throw error instanceof AppError ? error : unixError(error, path, directory);
  } finally {
    if (privateDirectory !== undefined) await rm(privateDirectory, { recursive: true, force: true });
  }
}

/** How much longer than the directory the longest path beside the socket may become: `/.svidecar~~~`, see withSocketLock. */
const besideBytes = 13;

function requireShortPath(path: string, directory: string): void {
  const bytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(directory) + besideBytes);
  if (bytes <= maxSocketPathBytes) return;
  throw new AppError(
    'invalid_argument',
    `socket path ${path} is too long: the system takes ${maxSocketPathBytes} bytes, and ${maxSocketPathBytes - besideBytes} for its directory`,
  );
}

async function requireSafeParent(directory: string, ourUid: number, allowSticky: boolean): Promise<void> {
  const { uid, mode } = await stat(directory);
  if (uid !== ourUid && uid !== 0) {
    throw new AppError(
      'permission_denied',
      `${directory} belongs to uid ${uid}, who could swap the socket: use a directory owned by uid ${ourUid} or root`,
    );
  }
  if ((mode & 0o002) !== 0 && !(allowSticky && (mode & 0o1000) !== 0)) {
    throw new AppError(
      'permission_denied',
      `everyone may write to ${directory}: use a directory of its own for the socket`,
    );
  }
}

async function requireFree(path: string): Promise<void> {
  switch (await probeSocket(path)) {
    case 'live':
      throw new AppError(
        'conflict',
        `another process already serves ${path}: stop it, or choose another path`,
      );
    case 'other':
      throw new AppError('conflict', `${path} exists and is no socket: remove it, or choose another path`);
    case 'dead':
    case 'absent':
  }
}

async function unlinkIfOurs(path: string, dev: number, ino: number): Promise<void> {
  try {
    const found = await lstat(path);
    if (found.dev === dev && found.ino === ino) await rm(path, { force: true });
  } catch {
    // Gone already, or out of reach: a socket nobody serves is replaced by the next start.
  }
}

function listening(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    // Not once: a failed accept later on costs that connection, not the program.
    server.on('error', reject);
    server.listen(options, resolve);
  });
}

function stopListening(server: Server): void {
  if (server.listening) server.close();
}

function unixError(error: unknown, path: string, directory: string): AppError {
  const cause = { cause: error };
  switch (errnoOf(error) ?? '') {
    case 'ENOENT':
      return new AppError(
        'not_found',
        `directory ${directory} does not exist: create it, or choose another path`,
        cause,
      );
    case 'ENOTDIR':
      return new AppError('not_found', `${directory} is no directory: choose another path`, cause);
    case 'EACCES':
    case 'EPERM':
      return new AppError(
        'permission_denied',
        `no permission to make the socket ${path}: let this process write to ${directory}, or choose another path`,
        cause,
      );
    case 'EROFS':
      return new AppError(
        'permission_denied',
        `${directory} is read-only: mount it writable, or choose another path`,
        cause,
      );
    default:
      return new AppError('unavailable', `cannot listen at ${path}: ${messageOf(error)}`, cause);
  }
}

function tcpError(error: unknown, host: string, port: number): AppError {
  const cause = { cause: error };
  switch (errnoOf(error) ?? '') {
    case 'EADDRINUSE':
      return new AppError(
        'conflict',
        `another process already listens at ${host}:${port}: stop it, or choose another port`,
        cause,
      );
    case 'EACCES':
      return new AppError(
        'permission_denied',
        `no permission to listen at ${host}:${port}: choose a port above 1023`,
        cause,
      );
    case 'EADDRNOTAVAIL':
      return new AppError('not_found', `this machine has no address ${host}: choose another host`, cause);
    default:
      return new AppError('unavailable', `cannot listen at ${host}:${port}: ${messageOf(error)}`, cause);
  }
}
