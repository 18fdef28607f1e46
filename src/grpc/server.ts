import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { sleep } from '../runtime/abort.ts';
import { AbortedError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { formatSocketAddress, type SocketAddress } from '../runtime/socket-address.ts';
import { bidiHandler, type HandlerScope, serverStreamHandler, unaryHandler } from './handlers.ts';
import type { Health } from './health.ts';
import { type Listener, listenTcp, listenUnix } from './listener.ts';
import type { Method, Service } from './service.ts';
import { Status, StatusError } from './status.ts';

export type GrpcServerOptions = Readonly<{
  services: readonly Service[];
  /** Adds grpc.health.v1 beside the services. */
  health?: Health;
  /** Bound on one received message, decompressed; 4 MiB unless told. A larger one ends its call RESOURCE_EXHAUSTED. */
  maxMessageBytes?: number;
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
  const { services, health, log } = options;
  const maxConnections = options.maxConnections ?? 1024;
  const server = new Server({
    'grpc.max_receive_message_length': options.maxMessageBytes ?? 4 * mebibyte,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': options.maxStreamsPerConnection ?? 4096,
    'grpc.enable_channelz': 0,
  });
  allowResets(server);
  const scope: HandlerScope = { streams: new Set(), log };
  for (const service of services) register(server, service, scope);
  health?.attach(server);

  // grpc-js would bind by itself, but then it also unlinks by itself and hides the errno: it is given connections.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
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
    else if (front === undefined) injector.injectConnection(socket);
    else front.admit(socket);
  }

  async function stop(graceMs: number): Promise<void> {
    await Promise.all([...listeners].map((listener) => listener.close()));
    const drained = new AbortController();
    allClosed = () => drained.abort();
    if (sockets.size === 0) allClosed();
    server.tryShutdown(() => {});
    const reason = new StatusError(Status.UNAVAILABLE, 'server is shutting down');
    for (const stream of scope.streams) stream.abort(reason);
    try {
      await sleep(graceMs, drained.signal);
    } catch (error) {
      if (!(error instanceof AbortedError)) throw error;
    }
    for (const socket of sockets) socket.destroy();
    server.forceShutdown();
  }

  return Object.freeze({
    async listen(address: SocketAddress, mode = 0o660, listenOptions: ListenOptions = {}) {
      if (stopped !== undefined) throw new AbortedError('server is shutting down');
      const { front, ...unixOptions } = listenOptions;
      front?.open((ready) => {
        if (stopped === undefined) injector.injectConnection(ready);
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
 * bounded all the same. grpc-js has no option for this; what it hands to every HTTP/2 server is private.
 */
function allowResets(server: Server): void {
  const { commonServerOptions } = server as unknown as { commonServerOptions: Http2Options };
  commonServerOptions.streamResetBurst = unlimited;
  commonServerOptions.streamResetRate = unlimited;
  commonServerOptions.maxSessionRejectedStreams = unlimited;
}

type Http2Options = {
  streamResetBurst?: number;
  streamResetRate?: number;
  maxSessionRejectedStreams?: number;
};
const unlimited = 0xffff_ffff;

const same = (bytes: Buffer): Buffer => bytes;

function register(server: Server, service: Service, scope: HandlerScope): void {
  for (const [name, method] of Object.entries(service.methods)) {
    const path = `/${service.name}/${name}`;
    if (!registerMethod(server, path, method, scope)) throw new Error(`two services have the method ${path}`);
  }
}

function registerMethod(server: Server, path: string, method: Method, scope: HandlerScope): boolean {
  switch (method.kind) {
    case 'unary':
      return server.register(path, unaryHandler(path, method, scope), same, same, 'unary');
    case 'server_stream':
      return server.register(path, serverStreamHandler(path, method, scope), same, same, 'serverStream');
    case 'bidi':
      return server.register(path, bidiHandler(path, method, scope), same, same, 'bidi');
    default:
      return method satisfies never;
  }
}
