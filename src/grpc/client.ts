import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { AbortedError } from '../runtime/errors.ts';
import type { SocketAddress } from '../runtime/socket-address.ts';
import { formatSocketAddress } from '../runtime/socket-address.ts';
import { Status, StatusError } from './status.ts';
import { untilAborted, writeMessage } from './stream.ts';

export type GrpcClientOptions = Readonly<{
  target: SocketAddress;
  /** Bound on one received message; a larger one ends its call with RESOURCE_EXHAUSTED. */
  maxMessageBytes: number;
}>;

export type CallOptions = Readonly<{
  metadata?: Readonly<Record<string, string>>;
  /** Cancels the call, which then fails with AbortedError. */
  signal: AbortSignal;
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED; no bound unless told. */
  timeoutMs?: number;
}>;

/**
 * Calls methods by their full path, e.g. `/SpiffeWorkloadAPI/FetchX509SVID`. Every call fails with a StatusError, or
 * with AbortedError once its signal has fired. Nothing is retried and nothing waits for a connection: one that cannot
 * be made is UNAVAILABLE at once (with the errno in the chain of causes), and the next call tries anew, so the backoff
 * is the caller's alone.
 */
export interface GrpcClient {
  unary(method: string, request: Buffer, options: CallOptions): Promise<Buffer>;
  serverStream(method: string, request: Buffer, options: CallOptions): AsyncIterable<Buffer>;
  /** The call is cancelled when the caller stops reading, and fails when `requests` does. */
  bidi(method: string, requests: AsyncIterable<Buffer>, options: CallOptions): AsyncIterable<Buffer>;
  /** Cancels the calls in progress, which fail with AbortedError, and ends the connection. */
  close(): void;
}

export function createGrpcClient({ target, maxMessageBytes }: GrpcClientOptions): GrpcClient {
  let current: Client | undefined;
  const calls = new Set<() => void>();
  let closed = false;

  function open({ signal }: CallOptions): Client {
    if (signal.aborted) throw new AbortedError();
    if (closed) throw new AbortedError('client is closed');
    return (current ??= createClient(target, maxMessageBytes));
  }

  /** A channel that has failed to connect would sit out a backoff of its own; the next call gets a fresh one. */
  function failure(client: Client, error: unknown, signal: AbortSignal): Error {
    if (
      client === current &&
      client.getChannel().getConnectivityState(false) === connectivityState.TRANSIENT_FAILURE
    ) {
      current = undefined;
      client.close();
    }
    if (signal.aborted) return new AbortedError('aborted', { cause: error });
    if (closed) return new AbortedError('client is closed', { cause: error });
    if (isServiceError(error)) return statusError(error, target);
    return error instanceof Error ? error : new StatusError(Status.UNKNOWN, 'call failed', { cause: error });
  }

  async function* responses(
    client: Client,
    call: ClientReadableStream<Buffer> | ClientDuplexStream<Buffer, Buffer>,
    signal: AbortSignal,
  ): AsyncIterable<Buffer> {
    const cancel = (): void => call.cancel();
    // Cancelling makes the call emit one more error, at a time when nobody iterates any more.
    call.on('error', () => {});
    signal.addEventListener('abort', cancel, { once: true });
    calls.add(cancel);
    try {
      for await (const message of call) yield message as Buffer;
    } catch (error) {
      throw failure(client, error, signal);
    } finally {
      signal.removeEventListener('abort', cancel);
      calls.delete(cancel);
      call.cancel();
    }
    if (signal.aborted) throw new AbortedError();
  }

  return Object.freeze({
    async unary(method: string, request: Buffer, options: CallOptions): Promise<Buffer> {
      const client = open(options);
      const { signal } = options;
      let cancel = (): void => {};
      try {
        return await new Promise<Buffer>((resolve, reject) => {
          const call = client.makeUnaryRequest(
            method,
            same,
            same,
            request,
            metadataOf(options),
            deadlineOf(options),
            (error, response) => {
              if (error === null && response !== undefined) resolve(response);
              else reject(error ?? new StatusError(Status.INTERNAL, 'no response'));
            },
          );
          cancel = () => call.cancel();
          signal.addEventListener('abort', cancel, { once: true });
          calls.add(cancel);
        });
      } catch (error) {
        throw failure(client, error, signal);
      } finally {
        signal.removeEventListener('abort', cancel);
        calls.delete(cancel);
      }
    },

    async *serverStream(method: string, request: Buffer, options: CallOptions): AsyncIterable<Buffer> {
      const client = open(options);
      const call = client.makeServerStreamRequest(
        method,
        same,
        same,
        request,
        metadataOf(options),
        deadlineOf(options),
      );
      yield* responses(client, call, options.signal);
    },

    async *bidi(
      method: string,
      requests: AsyncIterable<Buffer>,
      options: CallOptions,
    ): AsyncIterable<Buffer> {
      const client = open(options);
      const call = client.makeBidiStreamRequest(method, same, same, metadataOf(options), deadlineOf(options));
      const over = new AbortController();
      let requestError: { error: unknown } | undefined;
      const sending = send(call, requests, over.signal).catch((error: unknown) => {
        if (over.signal.aborted) return;
        requestError = { error };
        call.cancel();
      });
      try {
        yield* responses(client, call, options.signal);
      } catch (error) {
        throw requestError === undefined ? error : requestError.error;
      } finally {
        over.abort();
        await sending;
      }
    },

    close() {
      closed = true;
      for (const cancel of calls) cancel();
      current?.close();
      current = undefined;
    },
  });
}

function createClient(target: SocketAddress, maxMessageBytes: number): Client {
  const address =
    target.kind === 'unix' ? `unix:${target.path}` : formatSocketAddress(target).slice('tcp://'.length);
  return new Client(address, credentials.createInsecure(), {
    // The path of a socket makes an authority that strict HTTP/2 servers turn down.
    ...(target.kind === 'unix' ? { 'grpc.default_authority': 'localhost' } : {}),
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    // Messages kept for a retry count as sent, which would defeat flow control.
    'grpc.per_rpc_retry_buffer_size': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.enable_channelz': 0,
  });
}

const same = (bytes: Buffer): Buffer => bytes;

async function send(
  call: ClientDuplexStream<Buffer, Buffer>,
  requests: AsyncIterable<Buffer>,
  over: AbortSignal,
): Promise<void> {
  for await (const request of untilAborted(requests, over)) await writeMessage(call, request, over);
  call.end();
}

function metadataOf(options: CallOptions): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value);
  return metadata;
}

function deadlineOf({ timeoutMs }: CallOptions): { deadline?: number } {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' && 'details' in error;
}

/** grpc-js tells why it could not connect only in prose; the errno in it is made one again, for `errnoOf`. */
function statusError(error: ServiceError, target: SocketAddress): StatusError {
  const status: number = error.code;
  const errno = status === Status.UNAVAILABLE ? /\bconnect (E[A-Z]+)\b/.exec(error.details)?.[1] : undefined;
  if (errno === undefined) return new StatusError(status, error.details, { cause: error });
  const cause = Object.assign(new Error(error.details), { code: errno });
  return new StatusError(status, `cannot connect to ${formatSocketAddress(target)} (${errno})`, {
    cause,
  });
}
