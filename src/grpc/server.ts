import { createServer, type Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { sleep } from '../runtime/abort.ts';
import { AbortedError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { formatSocketAddress, type SocketAddress } from '../runtime/socket-address.ts';
import { type HandlerScope, type Serve, serveMethod } from './handlers.ts';
import type { Health } from './health.ts';
import { type Listener, listenTcp, listenUnix } from './listener.ts';
import { type CallScope, createServerCall, dismiss, refusalOf } from './server-call.ts';
import type { Service } from './service.ts';
import { Status, StatusError, toWireStatus } from './status.ts';
import { createUnfinishedRequests } from './unfinished.ts';

export type GrpcServerOptions = Readonly<{
  services: readonly Service[];
  /** Adds grpc.health.v1 beside the services. */
  health?: Health;
  /** Bound on one received message, decompressed; 4 MiB unless told. A larger one ends its call RESOURCE_EXHAUSTED. */
  maxMessageBytes?: number;
  /**
   * Bound on the memory of requests that are not whole yet, those of all connections together; 128 MiB unless told. The
   * oldest end RESOURCE_EXHAUSTED.
   */
  maxUnfinishedBytes?: number;
  /**
   * How long the one request of a call may take to come, in milliseconds, 10 s unless told: after that, before twice of
   * it, the call ends DEADLINE_EXCEEDED. Calls that take many requests have no such limit.
   */
  requestTimeoutMs?: number;
  /**
   * Bound on the calls in progress on one connection, those given up a moment ago among them; 4096 unless told. More
   * are refused by HTTP/2.
   */
  maxStreamsPerConnection?: number;
  /** Bound on the connections of one listener; 1024 unless told. More are closed at once. */
  maxConnections?: number;
  log: Logger;
}>;

export type ListenOptions = Readonly<{
  /** A unix socket right below a sticky directory that everyone may write to (/tmp); for development only. */
  allowStickyParent?: boolean;
  /** Stands between the socket and the server: connections go to it, and come back from it ready for HTTP/2. */
  front?: ConnectionFront;
}>;

/** TLS, for one. */
export type ConnectionFront = Readonly<{
  open(to: (ready: Duplex) => void): void;
  admit(socket: Socket): void;
}>;

/** An address in use: `close` stops accepting (a unix socket is unlinked if it still is ours), calls go on. */
export type BoundAddress = Readonly<{ address: string; port?: number; close(): Promise<void> }>;

export interface GrpcServer {
  /**
   * Accepts calls at one more address. `mode` (0660 unless told) is that of a unix socket. Throws AppError `conflict`
   * when someone else serves there, `permission_denied`, `not_found` or `unavailable`, saying what to do.
   */
  listen(address: SocketAddress, mode?: number, options?: ListenOptions): Promise<BoundAddress>;
  /**
   * Stops: no new connections, GOAWAY to every client, streams end with UNAVAILABLE, unary calls have `graceMs`
   * milliseconds to finish, then every connection is cut. Calling it again waits for the first call.
   */
  shutdown(graceMs: number): Promise<void>;
}

const mebibyte = 1024 * 1024;

/** A plaintext gRPC server for our services; any `:authority` is accepted, and clients may ping as often as they like. */
export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  const { health, log, maxMessageBytes = 4 * mebibyte, maxConnections = 1024 } = options;
  const { maxUnfinishedBytes = 128 * mebibyte, requestTimeoutMs = 10_000 } = options;
  const callScope: CallScope = {
    maxMessageBytes,
    unfinished: createUnfinishedRequests(maxUnfinishedBytes, requestTimeoutMs),
  };
  const scope: HandlerScope = { streams: new Set(), log };
  const services = health === undefined ? options.services : [...options.services, health.service];
  const methods = methodsOf(services, scope);
  const sessions = new Set<Http2Session>();

  // It never listens: it is given connections, because what it would do with a unix socket is not what we want.
  const server = createServer({
    settings: { enablePush: false, maxConcurrentStreams: options.maxStreamsPerConnection ?? 4096 },
    ...withoutOwnLimits,
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    // What is wrong with a stream shows in how it closes.
    stream.on('error', () => {});
    // One that was reset in the same breath is over already.
    if (stream.destroyed || stream.closed) return;
    const refusal = refusalOf(headers);
    if (refusal !== undefined) {
      stream.respond({ ':status': refusal }, { endStream: true });
      dismiss(stream);
      return;
    }
    const call = createServerCall(stream, headers, callScope);
    const path = headers[':path'] ?? '';
    const serve = methods.get(path);
    if (serve === undefined) call.finish(toWireStatus(noMethod(path)));
    else void serve(call);
  });
  const sockets = new Set<Socket>();
  const listeners = new Set<Listener>();
  let stopped: Promise<void> | undefined;
  let allClosed: (() => void) | undefined;

  function accept(socket: Socket, front: ConnectionFront | undefined): void {
    sockets.add(socket);
    // Whoever only looks whether the socket is served hangs up before a session could take care of it.
    socket.on('error', () => {});
    socket.once('close', () => {
      sockets.delete(socket);
      if (sockets.size === 0) allClosed?.();
    });
    if (stopped !== undefined) socket.destroy();
    else if (front === undefined) server.emit('connection', socket);
    else front.admit(socket);
  }

  async function stop(graceMs: number): Promise<void> {
    await Promise.all([...listeners].map((listener) => listener.close()));
    const drained = new AbortController();
    allClosed = () => drained.abort();
    if (sockets.size === 0) allClosed();
    for (const session of sessions) session.close();
    const reason = new StatusError(Status.UNAVAILABLE, 'server is shutting down');
    for (const stream of scope.streams) stream.abort(reason);
    try {
      await sleep(graceMs, drained.signal);
    } catch (error) {
      if (!(error instanceof AbortedError)) throw error;
    }
    for (const session of sessions) session.destroy();
    for (const socket of sockets) socket.destroy();
  }

  return Object.freeze({
    async listen(address: SocketAddress, mode = 0o660, listenOptions: ListenOptions = {}) {
      if (stopped !== undefined) throw new AbortedError('server is shutting down');
      const { front, ...unixOptions } = listenOptions;
      front?.open((ready) => {
        if (stopped === undefined) server.emit('connection', ready);
        else ready.destroy();
      });
      const take = (socket: Socket): void => accept(socket, front);
      const listener =
        address.kind === 'unix'
          ? await listenUnix({ ...unixOptions, path: address.path, mode, maxConnections }, take)
          : await listenTcp({ host: address.host, port: address.port, maxConnections }, take);
      listeners.add(listener);
      const { port } = listener;
      const bound = port === undefined || address.kind === 'unix' ? address : { ...address, port };
      const text = formatSocketAddress(bound);
      log.info({ address: text }, 'gRPC server listens');
      return Object.freeze({
        address: text,
        ...(port === undefined ? {} : { port }),
        async close() {
          listeners.delete(listener);
          await listener.close();
        },
      });
    },
    shutdown: (graceMs: number) => (stopped ??= stop(graceMs)),
  });
}

/**
 * Node ends a connection, and with it every call on it, that has reset 1000 calls and goes on above 33 a second, or has
 * brought 100 calls too many: it counts those that are over until it gets round to them. An Envoy gives up a Check
 * whenever its own client goes away, so one hasty client could make errors of everybody's Checks. Calls in progress are
 * bounded all the same, and so are their messages, which is what the limit on a session's memory is about.
 */
const unlimited = 0xffff_ffff;
const withoutOwnLimits = Object.freeze({
  streamResetBurst: unlimited,
  streamResetRate: unlimited,
  maxSessionRejectedStreams: unlimited,
  maxSessionMemory: Number.MAX_SAFE_INTEGER,
});

function methodsOf(services: readonly Service[], scope: HandlerScope): ReadonlyMap<string, Serve> {
  const methods = new Map<string, Serve>();
  for (const service of services) {
    for (const [name, method] of Object.entries(service.methods)) {
      const path = `/${service.name}/${name}`;
      if (methods.has(path)) throw new Error(`two services have the method ${path}`);
      methods.set(path, serveMethod(path, method, scope));
    }
  }
  return methods;
}

function noMethod(path: string): StatusError {
  return new StatusError(Status.UNIMPLEMENTED, `no service here has the method ${path}`);
}
