import { connect, constants } from 'node:http2';
import { createConnection } from 'node:net';
import { performance } from 'node:perf_hooks';

/** Figures of one run: calls per second, and latency in microseconds. */
export type Figures = Readonly<{ perSecond: number; meanUs: number; p99Us: number }>;

/**
 * Calls one unary gRPC method `total` times with `inFlight` calls open at once, over a single HTTP/2 connection with
 * pre-encoded bytes, so that the client costs as little as it can. Throws when an answer is not grpc-status 0 or
 * fails `accept`.
 */
export async function measureUnary(options: {
  socketPath: string;
  method: string;
  request: Buffer;
  total: number;
  inFlight: number;
  accept: (response: Buffer) => boolean;
}): Promise<Figures> {
  const session = connect('http://localhost', {
    createConnection: () => createConnection(options.socketPath),
  });
  const frame = Buffer.alloc(5 + options.request.length);
  frame.writeUInt32BE(options.request.length, 1);
  options.request.copy(frame, 5);
  const headers = {
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: options.method,
    [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
    [constants.HTTP2_HEADER_TE]: 'trailers',
  };

  const call = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const stream = session.request(headers);
      const chunks: Buffer[] = [];
      let status: unknown;
      stream.on('trailers', (trailers) => {
        status = trailers['grpc-status'];
      });
      stream.on('response', (response) => {
        status ??= response['grpc-status'];
      });
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('error', reject);
      stream.on('close', () => {
        const body = Buffer.concat(chunks).subarray(5);
        if (status === '0' && options.accept(body)) resolve();
        else reject(new Error(`answer not accepted: grpc-status ${String(status)}, ${body.length} bytes`));
      });
      stream.end(frame);
    });

  const latencies = new Float64Array(options.total);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < options.total) {
      const index = next;
      next += 1;
      const start = performance.now();
      await call();
      latencies[index] = performance.now() - start;
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: options.inFlight }, worker));
  const seconds = (performance.now() - start) / 1000;
  await new Promise<void>((resolve) => {
    session.close(resolve);
  });
  latencies.sort();
  const mean = latencies.reduce((sum, ms) => sum + ms, 0) / options.total;
  return {
    perSecond: options.total / seconds,
    meanUs: mean * 1000,
    p99Us: (latencies[Math.floor(options.total * 0.99)] ?? 0) * 1000,
  };
}

/** The middle of an odd number of values. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
