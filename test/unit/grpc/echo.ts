import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGrpcClient, type GrpcClient } from '../../../src/grpc/client.ts';
import { createGrpcServer, type GrpcServer, type GrpcServerOptions } from '../../../src/grpc/server.ts';
import type {
  BidiMethod,
  CallContext,
  ServerStreamMethod,
  Service,
  UnaryMethod,
} from '../../../src/grpc/service.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import type { SocketAddress } from '../../../src/runtime/socket-address.ts';

const same = (bytes: Buffer): Buffer => bytes;
const codec = { decode: same, encode: same };

export type Unary = UnaryMethod<Buffer, Buffer>['handle'];
export type ServerStream = ServerStreamMethod<Buffer, Buffer>['handle'];
export type Bidi = BidiMethod<Buffer, Buffer>['handle'];

/** A service of bytes, echoing where it is not told otherwise. */
export function echoService(handlers: { unary?: Unary; stream?: ServerStream; bidi?: Bidi } = {}): Service {
  return {
    name: 'test.Echo',
    methods: {
      Unary: { ...codec, kind: 'unary', handle: handlers.unary ?? (async (request) => request) },
      Stream: { ...codec, kind: 'server_stream', handle: handlers.stream ?? echoThrice },
      Bidi: { ...codec, kind: 'bidi', handle: handlers.bidi ?? ((requests) => requests) },
    },
  };
}

async function* echoThrice(request: Buffer): AsyncIterable<Buffer> {
  for (const n of [1, 2, 3]) yield Buffer.from(`${request.toString()}${n}`);
}

/** A server at a unix socket in a directory of its own, and a client; all is gone at the end of the block. */
export async function startEcho(
  handlers: Parameters<typeof echoService>[0] = {},
  options: Partial<GrpcServerOptions> = {},
): Promise<{ server: GrpcServer; client: GrpcClient; address: SocketAddress } & AsyncDisposable> {
  const directory = temporaryDirectory();
  const server = createGrpcServer({ services: [echoService(handlers)], log: silentLogger, ...options });
  const address: SocketAddress = { kind: 'unix', path: join(directory.path, 'echo.sock') };
  await server.listen(address);
  const client = createGrpcClient({ target: address, maxMessageBytes: 4 * 1024 * 1024 });
  return {
    server,
    client,
    address,
    async [Symbol.asyncDispose]() {
      client.close();
      await server.shutdown(0);
      directory[Symbol.dispose]();
    },
  };
}

export function temporaryDirectory(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'grpc-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** A signal that nobody fires. */
export const never = new AbortController().signal;

/** Yields `items` and then waits for `signal`. */
export async function* thenWait(items: readonly string[], signal: AbortSignal): AsyncIterable<Buffer> {
  for (const item of items) yield Buffer.from(item);
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

export async function textsOf(messages: AsyncIterable<Buffer>): Promise<string[]> {
  const texts: string[] = [];
  for await (const message of messages) texts.push(message.toString());
  return texts;
}

/** A promise to be kept from outside. */
export function deferred<T>(): { promise: Promise<T>; resolve(value: T): void } {
  const { promise, resolve } = Promise.withResolvers<T>();
  return { promise, resolve };
}

export type { CallContext };
