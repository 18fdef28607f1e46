import { AbortedError, AppError, messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { ServerCall } from './server-call.ts';
import type { BidiMethod, Method, ServerStreamMethod, UnaryMethod } from './service.ts';
import { Status, StatusError, toWireStatus, type WireStatus } from './status.ts';
import { untilAborted } from './stream.ts';

/** What the handlers of one server share. */
export type HandlerScope = Readonly<{
  /** The streaming calls in progress; aborting one with a StatusError ends it with that. */
  streams: Set<ServerCall>;
  log: Logger;
}>;

/** Sees one call of a method through to its end; never rejects. */
export type Serve = (call: ServerCall) => Promise<void>;

export function serveMethod(path: string, method: Method, scope: HandlerScope): Serve {
  switch (method.kind) {
    case 'unary':
      return (call) => serveUnary(path, method, call, scope);
    case 'server_stream':
      return (call) => serveStream(path, method, call, scope, answersToOne(method, call));
    case 'bidi':
      return (call) => serveStream(path, method, call, scope, answersToMany(method, call));
    default:
      return method satisfies never;
  }
}

/** This is the path of every Check, so it makes nothing that is not asked for. */
async function serveUnary(
  path: string,
  method: UnaryMethod<unknown, unknown>,
  call: ServerCall,
  { log }: HandlerScope,
): Promise<void> {
  try {
    const request = method.decode(await call.request());
    call.answer(method.encode(await method.handle(request, call.context)));
  } catch (error) {
    call.finish(statusFor(error, path, log));
  }
}

async function serveStream(
  path: string,
  method: ServerStreamMethod<unknown, unknown> | BidiMethod<unknown, unknown>,
  call: ServerCall,
  { streams, log }: HandlerScope,
  answers: AsyncIterable<unknown>,
): Promise<void> {
  const { signal } = call.context;
  streams.add(call);
  try {
    for await (const answer of answers) {
      if (signal.aborted) break;
      await call.send(method.encode(answer));
    }
    call.finish(signal.reason instanceof StatusError ? toWireStatus(signal.reason) : undefined);
  } catch (error) {
    const cause = signal.reason instanceof StatusError ? signal.reason : error;
    call.finish(signal.aborted && cause === error ? cancelled : statusFor(cause, path, log));
  } finally {
    streams.delete(call);
    call.abort();
  }
}

const cancelled: WireStatus = Object.freeze({ code: Status.CANCELLED, details: 'the call was cancelled' });

async function* answersToOne(
  method: ServerStreamMethod<unknown, unknown>,
  call: ServerCall,
): AsyncIterable<unknown> {
  yield* method.handle(method.decode(await call.request()), call.context);
}

async function* answersToMany(
  method: BidiMethod<unknown, unknown>,
  call: ServerCall,
): AsyncIterable<unknown> {
  yield* method.handle(requestsOf(method, call), call.context);
}

async function* requestsOf(
  { decode }: BidiMethod<unknown, unknown>,
  call: ServerCall,
): AsyncIterable<unknown> {
  try {
    for await (const message of untilAborted(call.requests(), call.context.signal)) yield decode(message);
  } catch (error) {
    throw error instanceof AppError ? error : new AbortedError('the call is over', { cause: error });
  }
}

function statusFor(error: unknown, path: string, log: Logger): WireStatus {
  const status = toWireStatus(error);
  if (status.code === Status.INTERNAL && !(error instanceof StatusError))
    log.error({ method: path, error: messageOf(error) }, 'gRPC handler failed');
  return status;
}
