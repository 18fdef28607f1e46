import { createGrpcClient } from '../grpc/client.ts';
import { messageCodec } from '../grpc/protos.ts';
import { withDeadline } from '../runtime/abort.ts';
import type { SocketAddress } from '../runtime/socket-address.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import { decodeJwtSvids, maxMessageBytes } from './decode.ts';
import { describeFailure, type Failure } from './failure.ts';
import type { JwtSvidRequest } from './identity-source.ts';

/** The server streams in use, by their names in the SPIFFE Workload API. */
export type StreamMethod = 'FetchX509SVID' | 'FetchJWTBundles';

export type WorkloadClientOptions = Readonly<{
  address: SocketAddress;
  /** How long a call may stay without its first answer; the standard wants one at once. */
  answerTimeoutMs: number;
  now: () => number;
}>;

/**
 * Calls to the Workload API at `address`. Each call opens a connection of its own and closes it at the end, so that the
 * socket's path is looked up again and an agent that restarted under a new inode is found.
 */
export type WorkloadClient = Readonly<{
  /** The raw messages of one stream; throws StatusError, or TimeoutError when the first one stays away. */
  stream(method: StreamMethod, signal: AbortSignal): AsyncIterable<Buffer>;
  /** FetchJWTSVID; throws StatusError or, for an answer that does not hold, MalformedError. */
  fetchJwtSvids(request: JwtSvidRequest, signal: AbortSignal): Promise<readonly JwtSvid[]>;
  /** See describeFailure. */
  describe(error: unknown): Promise<Failure>;
}>;

/** Workload Endpoint §5: without it a server refuses the call, so that a forged web request cannot make one. */
const metadata = Object.freeze({ 'workload.spiffe.io': 'true' });

const x509Request = messageCodec('X509SVIDRequest');
const jwtBundlesRequest = messageCodec('JWTBundlesRequest');
const jwtSvidRequest = messageCodec('JWTSVIDRequest');

export function createWorkloadClient({
  address,
  answerTimeoutMs,
  now,
}: WorkloadClientOptions): WorkloadClient {
  const connect = () => createGrpcClient({ target: address, maxMessageBytes });
  return Object.freeze({
    async *stream(method: StreamMethod, signal: AbortSignal) {
      const request = method === 'FetchX509SVID' ? x509Request.encode({}) : jwtBundlesRequest.encode({});
      const client = connect();
      const ended = new AbortController();
      try {
        const answers = client.serverStream(`/SpiffeWorkloadAPI/${method}`, request, {
          metadata,
          signal: AbortSignal.any([signal, ended.signal]),
        });
        const messages = answers[Symbol.asyncIterator]();
        let step = await withDeadline(answerTimeoutMs, signal, () => messages.next());
        while (step.done !== true) {
          yield step.value;
          step = await messages.next();
        }
      } finally {
        ended.abort();
        client.close();
      }
    },
    async fetchJwtSvids(request: JwtSvidRequest, signal: AbortSignal) {
      const client = connect();
      try {
        const bytes = await client.unary(
          '/SpiffeWorkloadAPI/FetchJWTSVID',
          jwtSvidRequest.encode({ audience: [...request.audiences], spiffeId: request.spiffeId ?? '' }),
          { metadata, signal, timeoutMs: answerTimeoutMs },
        );
        return decodeJwtSvids(bytes, request, now());
      } finally {
        client.close();
      }
    },
    describe: (error: unknown) => describeFailure(error, address),
  });
}
