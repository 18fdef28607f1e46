import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, AppError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { formatSocketAddress } from '../runtime/socket-address.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import { createWorkloadClient, type StreamMethod } from './client.ts';
import { decodeJwtBundles, decodeX509Context } from './decode.ts';
import { isLocalEndpoint, parseEndpointAddress } from './endpoint.ts';
import type { IdentitySource, JwtSvidRequest, WatchEvent } from './identity-source.ts';
import type { WorkloadMeter, WorkloadRpc } from './meter.ts';
import { watch } from './watch.ts';

export type WorkloadApiSourceOptions = Readonly<{
  /** `unix:///path.sock` or `tcp://IP:PORT`. */
  address: string;
  sleep: Sleep;
  /** A number in [0, 1). */
  random: () => number;
  /** Milliseconds since the epoch. */
  now: () => number;
  log: Logger;
  meter: WorkloadMeter;
  /** How long a call may stay without its first answer; 30 s when absent. */
  answerTimeoutMs?: number;
}>;

/**
 * Identity from a SPIFFE Workload API. Nothing is opened before the first watch or fetch; an address that breaks the
 * rules is a MalformedError at once. Errors of fetchJwtSvids keep their gRPC meaning as `code`, and it never retries.
 */
export function createWorkloadApiSource(options: WorkloadApiSourceOptions): IdentitySource {
  const { sleep, random, now, log, meter, answerTimeoutMs = 30_000 } = options;
  const address = parseEndpointAddress(options.address);
  if (!isLocalEndpoint(address)) {
    log.warn(
      { address: formatSocketAddress(address) },
      'workload api is reached over the network without encryption: the network must vouch for both ends',
    );
  }
  const client = createWorkloadClient({ address, answerTimeoutMs, now });

  /** Seconds since then; the clock may have been set back meanwhile. */
  const secondsSince = (startedAt: number): number => Math.max(0, now() - startedAt) / 1000;

  async function* attempt(
    rpc: WorkloadRpc,
    method: StreamMethod,
    signal: AbortSignal,
  ): AsyncIterable<Buffer> {
    const startedAt = now();
    let waiting = true;
    for await (const message of client.stream(method, signal)) {
      if (waiting) meter.answered(rpc, secondsSince(startedAt));
      waiting = false;
      yield message;
    }
  }

  function stream<T>(
    rpc: WorkloadRpc,
    method: StreamMethod,
    decode: (bytes: Buffer) => T,
    signal: AbortSignal,
  ) {
    return watch<T>(
      {
        rpc,
        attempt: (inner) => attempt(rpc, method, inner),
        decode,
        classify: client.describe,
        sleep,
        random,
        log,
        meter,
      },
      signal,
    );
  }

  return Object.freeze({
    name: 'workload_api' as const,
    watchX509: (signal: AbortSignal): AsyncIterable<WatchEvent<X509Context>> =>
      stream('fetch_x509_svid', 'FetchX509SVID', (bytes) => decodeX509Context(bytes, now()), signal),
    watchJwtBundles: (signal: AbortSignal) =>
      stream('fetch_jwt_bundles', 'FetchJWTBundles', decodeJwtBundles, signal),
    async fetchJwtSvids(request: JwtSvidRequest, signal: AbortSignal) {
      if (request.audiences.length === 0 || request.audiences.includes('')) {
        throw new AppError('invalid_argument', 'a JWT-SVID needs an audience');
      }
      const startedAt = now();
      try {
        const svids = await client.fetchJwtSvids(request, signal);
        meter.answered('fetch_jwt_svid', secondsSince(startedAt));
        meter.updated('fetch_jwt_svid');
        return svids;
      } catch (error) {
        if (signal.aborted) throw new AbortedError('aborted', { cause: error });
        const failure = await client.describe(error);
        meter.failed('fetch_jwt_svid', failure.kind);
        throw failure.error;
      }
    },
  });
}
