import { connect as connectHttp2, constants } from 'node:http2';
import { createConnection, type Socket } from 'node:net';

/** How a call ended, as it stood on the wire; undefined members never came. */
export type RawAnswer = Readonly<{
  httpStatus: number | undefined;
  grpcStatus: number | undefined;
  /** RST_STREAM, if that was what ended it. */
  reset: number | undefined;
  body: Buffer;
}>;

export type RawCall = Readonly<{
  headers?: Readonly<Record<string, string>>;
  /** Written as they are, each as data of its own. */
  chunks?: readonly Buffer[];
  /** Leaves the request open; it is then over when the server says so, or the session ends. */
  open?: boolean;
  /** Gives up with this code as soon as everything is written. */
  cancel?: boolean;
}>;

export interface RawSession {
  call(call: RawCall): Promise<RawAnswer>;
  /** Cuts the connection. */
  destroy(): void;
}

export const checkPath = '/envoy.service.auth.v3.Authorization/Check';

/** An HTTP/2 connection on which one can say what no gRPC library would. */
export async function openRawSession(socketPath: string): Promise<RawSession> {
  const session = connectHttp2('http://localhost', { createConnection: () => createConnection(socketPath) });
  session.on('error', () => {});
  await new Promise<void>((resolve, reject) => {
    session.once('connect', () => resolve());
    session.once('error', reject);
  });
  return {
    call: ({ headers, chunks = [], open = false, cancel = false }) =>
      new Promise((resolve) => {
        const stream = session.request({
          [constants.HTTP2_HEADER_METHOD]: 'POST',
          [constants.HTTP2_HEADER_PATH]: checkPath,
          [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
          [constants.HTTP2_HEADER_TE]: 'trailers',
          ...headers,
        });
        let httpStatus: number | undefined;
        let grpcStatus: unknown;
        const received: Buffer[] = [];
        stream.on('error', () => {});
        stream.on('response', (response) => {
          httpStatus = response[':status'];
          grpcStatus = response['grpc-status'];
        });
        stream.on('trailers', (trailers) => {
          grpcStatus = trailers['grpc-status'];
        });
        stream.on('data', (chunk: Buffer) => received.push(chunk));
        stream.on('close', () =>
          resolve({
            httpStatus,
            grpcStatus: grpcStatus === undefined ? undefined : Number(grpcStatus),
            reset: stream.rstCode === 0 ? undefined : stream.rstCode,
            body: Buffer.concat(received),
          }),
        );
        for (const chunk of chunks) stream.write(chunk);
        if (!open) stream.end();
        if (cancel) stream.close(constants.NGHTTP2_CANCEL);
      }),
    destroy: () => session.destroy(),
  };
}

/** A message as gRPC frames it; the length may be told otherwise than it is. */
export function grpcFrame(message: Buffer, { flag = 0, length = message.length } = {}): Buffer<ArrayBuffer> {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** An HTTP/2 frame (RFC 9113 §4.1). */
export function http2Frame(
  type: number,
  flags: number,
  streamId: number,
  payload = Buffer.alloc(0),
): Buffer<ArrayBuffer> {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

export const http2Preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** Writes bytes to a socket, as they are; resolves when the other side has ended it, or after `patienceMs`. */
export function writeRaw(socketPath: string, bytes: readonly Buffer[], patienceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const socket: Socket = createConnection(socketPath);
    const timer = setTimeout(() => socket.destroy(), patienceMs);
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.resume();
    for (const part of bytes) socket.write(part);
  });
}
