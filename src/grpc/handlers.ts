import { setImmediate } from 'node:timers/promises';
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
} from '@grpc/grpc-js';
import { AbortedError, AppError, messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { BidiMethod, CallContext, ServerStreamMethod, UnaryMethod } from './service.ts';
import { Status, StatusError, toWireStatus, type WireStatus } from './status.ts';
import { untilAborted, writeMessage } from './stream.ts';

/** What the handlers of one server share. */
export type HandlerScope = Readonly<{
  /** One controller for each streaming call in progress; aborting it with a StatusError ends the call with that. */
  streams: Set<AbortController>;
  log: Logger;
}>;

type Call = Readonly<{
  metadata: Metadata;
  cancelled: boolean;
  getPeer(): string;
  getDeadline(): Date | number;
  on(event: 'cancelled', listener: () => void): unknown;
}>;

type Streaming = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

/** The grpc-js handler of a unary method. This is the path of every Check, so it makes nothing that is not asked for. */
export function unaryHandler(
  path: string,
  method: UnaryMethod<unknown, unknown>,
  scope: HandlerScope,
): handleUnaryCall<Buffer, Buffer> {
  async function answer(
    call: ServerUnaryCall<Buffer, Buffer>,
    respond: sendUnaryData<Buffer>,
  ): Promise<void> {
    const context = unaryContext(call);
    let bytes: Buffer;
    try {
      bytes = method.encode(await method.handle(method.decode(call.request), context));
    } catch (error) {
      respond(statusFor(error, path, scope.log));
      return;
    } finally {
      context.over();
    }
    respond(null, bytes);
  }
  return (call, respond) => void answer(call, respond);
}

/** The grpc-js handler of a server streaming method. */
export function serverStreamHandler(
  path: string,
  method: ServerStreamMethod<unknown, unknown>,
  scope: HandlerScope,
): handleServerStreamingCall<Buffer, Buffer> {
  return (call) =>
    void runStream(path, call, scope, method.encode, (context) =>
      method.handle(method.decode(call.request), context),
    );
}

/** The grpc-js handler of a bidirectional method. */
export function bidiHandler(
  path: string,
  method: BidiMethod<unknown, unknown>,
  scope: HandlerScope,
): handleBidiStreamingCall<Buffer, Buffer> {
  return (call) =>
    void runStream(path, call, scope, method.encode, (context) =>
      method.handle(requestsOf(call, method.decode, context.signal), context),
    );
}

async function runStream(
  path: string,
  call: Streaming,
  scope: HandlerScope,
  encode: (response: unknown) => Buffer,
  respond: (context: CallContext) => AsyncIterable<unknown>,
): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  scope.streams.add(controller);
  call.on('cancelled', () => controller.abort());
  try {
    for await (const response of respond(streamContext(call, signal))) {
      if (signal.aborted) break;
      await writeMessage(call, encode(response), signal);
    }
    finish(call, signal.reason instanceof StatusError ? toWireStatus(signal.reason) : undefined);
  } catch (error) {
    const cause = signal.reason instanceof StatusError ? signal.reason : error;
    finish(call, signal.aborted && cause === error ? cancelled : statusFor(cause, path, scope.log));
  } finally {
    scope.streams.delete(controller);
    controller.abort();
  }
}

const cancelled: WireStatus = Object.freeze({ code: Status.CANCELLED, details: 'the call was cancelled' });

function finish(call: Streaming, failure: WireStatus | undefined): void {
  if (call.cancelled || call.destroyed) return;
  if (failure === undefined) call.end();
  else call.emit('error', failure);
}

async function* requestsOf(
  call: ServerDuplexStream<Buffer, Buffer>,
  decode: (bytes: Buffer) => unknown,
  signal: AbortSignal,
): AsyncIterable<unknown> {
  try {
    // Left alone on an early exit: the answers go out over the same stream.
    const messages: AsyncIterable<Buffer> = call.iterator({ destroyOnReturn: false });
    for await (const message of untilAborted(messages, signal)) yield decode(message);
    // A cancelled call first looks like one whose requests are complete, and tells the truth a moment later.
    await setImmediate();
    if (signal.aborted) throw new AbortedError();
  } catch (error) {
    throw error instanceof AppError ? error : new AbortedError('the call is over', { cause: error });
  }
}

function statusFor(error: unknown, path: string, log: Logger): WireStatus {
  const status = toWireStatus(error);
  if (status.code === Status.INTERNAL)
    log.error({ method: path, error: messageOf(error) }, 'gRPC handler failed');
  return status;
}

function unaryContext(call: Call): CallContext & Readonly<{ over(): void }> {
  let controller: AbortController | undefined;
  return {
    get signal() {
      if (controller === undefined) {
        controller = new AbortController();
        if (call.cancelled) controller.abort();
        else call.on('cancelled', () => controller?.abort());
      }
      return controller.signal;
    },
    /** grpc-js calls every call cancelled when its stream closes; once it is answered, nobody needs to know. */
    over() {
      controller = undefined;
    },
    get deadline() {
      return deadlineOf(call);
    },
    get peer() {
      return peerOf(call);
    },
    metadata: (key) => metadataOf(call, key),
  };
}

function streamContext(call: Call, signal: AbortSignal): CallContext {
  return Object.freeze({
    signal,
    deadline: deadlineOf(call),
    peer: peerOf(call),
    metadata: (key: string) => metadataOf(call, key),
  });
}

function deadlineOf(call: Call): number | undefined {
  const deadline = Number(call.getDeadline());
  return Number.isFinite(deadline) ? deadline : undefined;
}

function peerOf(call: Call): string {
  const peer = call.getPeer();
  return peer === 'unknown' ? '' : peer;
}

function metadataOf(call: Call, key: string): readonly string[] {
  return call.metadata.get(key).map(String);
}
