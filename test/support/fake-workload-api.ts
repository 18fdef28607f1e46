import { Server, ServerCredentials, type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { MessageTypes } from '../../src/grpc/messages.ts';
import { messageCodec } from '../../src/grpc/protos.ts';

/** The calls of the Workload API that the fake can play, with the message each answers with. */
const responses = {
  FetchX509SVID: 'X509SVIDResponse',
  FetchJWTBundles: 'JWTBundlesResponse',
  FetchJWTSVID: 'JWTSVIDResponse',
} as const;

export type FakeMethod = keyof typeof responses;
type Response<M extends FakeMethod> = MessageTypes[(typeof responses)[M]]['in'];

/** One call that a client has made, to be answered as a test likes. */
export type FakeCall<M extends FakeMethod> = Readonly<{
  /** 0 for the first call of this method. */
  attempt: number;
  request: Buffer;
  send(message: Response<M>): void;
  /** Bytes as they are: to break messages. */
  sendBytes(bytes: Buffer): void;
  fail(code: keyof typeof status, details?: string): void;
  end(): void;
  /** Resolves when the client has gone. */
  closed: Promise<void>;
}>;

export type FakeScript = { [M in FakeMethod]?: (call: FakeCall<M>) => void };

export interface FakeWorkloadApi {
  /** As a client is given it. */
  readonly address: string;
  /** How often each method was called with the security header. */
  calls(method: FakeMethod): number;
  /** Stops at once, with every open stream; a unix socket's file goes too. */
  stop(): void;
}

type Duplex = ServerDuplexStream<Buffer, Buffer>;

/**
 * A Workload API on a real socket that does what its script says. Methods without a script are UNIMPLEMENTED, and calls
 * without the security header are refused as the standard demands.
 */
export async function startFakeWorkloadApi(
  target: { path: string } | { host: string },
  script: FakeScript,
): Promise<FakeWorkloadApi> {
  const server = new Server();
  const counts = new Map<FakeMethod, number>();
  const identity = (bytes: Buffer): Buffer => bytes;
  const methods = Object.keys(script) as FakeMethod[];
  server.addService(
    Object.fromEntries(
      methods.map((method) => [
        method,
        {
          path: `/SpiffeWorkloadAPI/${method}`,
          requestStream: true,
          responseStream: true,
          requestSerialize: identity,
          requestDeserialize: identity,
          responseSerialize: identity,
          responseDeserialize: identity,
        },
      ]),
    ),
    Object.fromEntries(methods.map((method) => [method, (duplex: Duplex) => play(method, duplex)])),
  );

  function play(method: FakeMethod, duplex: Duplex): void {
    const fail = (code: keyof typeof status, details = ''): void => {
      duplex.emit('error', { code: status[code], details });
    };
    if (duplex.metadata.get('workload.spiffe.io').join() !== 'true') {
      fail('INVALID_ARGUMENT', 'security header missing from request');
      return;
    }
    const attempt = counts.get(method) ?? 0;
    counts.set(method, attempt + 1);
    const closed = new Promise<void>((resolve) => duplex.once('cancelled', () => resolve()));
    const codec = messageCodec(responses[method]);
    duplex.once('data', (request: Buffer) => {
      const answer: ((call: FakeCall<FakeMethod>) => void) | undefined = script[method];
      answer?.({
        attempt,
        request,
        send: (message) => duplex.write(codec.encode(message)),
        sendBytes: (bytes) => duplex.write(bytes),
        fail,
        end: () => duplex.end(),
        closed,
      });
    });
  }

  const bindTo = 'path' in target ? `unix:${target.path}` : `${target.host}:0`;
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(bindTo, ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return {
    address: 'path' in target ? `unix://${target.path}` : `tcp://${target.host}:${port}`,
    calls: (method) => counts.get(method) ?? 0,
    stop: () => server.forceShutdown(),
  };
}
