import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { setImmediate as afterThisTurn } from 'node:timers';
import { setImmediate } from 'node:timers/promises';
import { AbortedError } from '../runtime/errors.ts';
import { acceptedEncodings, createDeframer, type Frame, frameOf, unpack } from './framing.ts';
import type { CallContext } from './service.ts';
import { Status, StatusError, type WireStatus } from './status.ts';
import { writeMessage } from './stream.ts';
import type { Unfinished, UnfinishedRequests } from './unfinished.ts';

/** One call on its HTTP/2 stream, seen from the server: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. */
export interface ServerCall {
  /** What its handler may know of it. */
  readonly context: CallContext;
  /** The one message of a call that has one. Rejects with AbortedError when the call ends before, else a StatusError. */
  request(): Promise<Buffer>;
  /** The messages of a call, as fast as they are asked for. Throws as `request` does. */
  requests(): AsyncIterable<Buffer>;
  /** Sends a message and waits until HTTP/2 has taken it; rejects with AbortedError once the call is over. */
  send(message: Buffer): Promise<void>;
  /** Sends a message as the last one, and ends the call well. */
  answer(message: Buffer): void;
  /** Ends the call: well, or with `failure`. Does nothing when it is over. */
  finish(failure?: WireStatus): void;
  /** Fires the signal of the context. */
  abort(reason?: StatusError): void;
}

const responseHeaders = Object.freeze({
  ':status': 200,
  'content-type': 'application/grpc',
  'grpc-accept-encoding': acceptedEncodings,
});
const withTrailers = Object.freeze({ waitForTrailers: true, sendDate: false });
const withoutMessages = Object.freeze({ endStream: true, sendDate: false });
const ok = Object.freeze({ 'grpc-status': '0' });
const deadlineExceeded: WireStatus = Object.freeze({
  code: Status.DEADLINE_EXCEEDED,
  details: 'deadline exceeded',
});

/** The HTTP status for a request that is no gRPC call; undefined for one that is. */
export function refusalOf(headers: IncomingHttpHeaders): number | undefined {
  if (headers[':method'] !== 'POST') return constants.HTTP_STATUS_METHOD_NOT_ALLOWED;
  if (!/^application\/grpc(?:$|[+;])/.test(headers['content-type'] ?? ''))
    return constants.HTTP_STATUS_UNSUPPORTED_MEDIA_TYPE;
  const timeout = headers['grpc-timeout'];
  if (timeout !== undefined && Number.isNaN(parseTimeout(timeout))) return constants.HTTP_STATUS_BAD_REQUEST;
  return undefined;
}

/** What the calls of one server have in common. */
export type CallScope = Readonly<{
  /** Bound on one received message, unpacked. */
  maxMessageBytes: number;
  unfinished: UnfinishedRequests;
}>;

/** Takes charge of a stream. */
export function createServerCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  { maxMessageBytes, unfinished }: CallScope,
): ServerCall {
  let over = false;
  let controller: AbortController | undefined;
  let timer: NodeJS.Timeout | undefined;
  let trailers: Readonly<Record<string, string>> = ok;
  let fail: ((error: Error) => void) | undefined;

  const timeout = headers['grpc-timeout'];
  const timeoutMs = timeout === undefined ? Number.POSITIVE_INFINITY : parseTimeout(timeout);
  const deadline = timeout === undefined ? undefined : Date.now() + timeoutMs;
  if (timeoutMs <= maxTimerMs) {
    timer = setTimeout(() => {
      finish(deadlineExceeded);
      gone();
    }, timeoutMs);
  }
  stream.on('aborted', gone);
  stream.on('close', release);

  /** Nobody waits for an answer any more. */
  function gone(): void {
    over = true;
    clearTimeout(timer);
    fail?.(new AbortedError('the call is over'));
    abort();
  }

  function abort(reason?: StatusError): void {
    controller?.abort(reason);
  }

  function isOver(): boolean {
    return over || stream.closed || stream.destroyed;
  }

  function begin(): void {
    if (stream.headersSent) return;
    stream.respond(responseHeaders, withTrailers);
    stream.once('wantTrailers', () => {
      stream.sendTrailers(trailers);
      dismiss(stream);
    });
  }

  function finish(failure?: WireStatus): void {
    if (isOver()) return;
    over = true;
    clearTimeout(timer);
    if (failure !== undefined && !stream.headersSent) {
      stream.respond({ ...responseHeaders, ...trailersOf(failure) }, withoutMessages);
      dismiss(stream);
    } else {
      begin();
      if (failure !== undefined) trailers = trailersOf(failure);
      stream.end();
    }
    // What the caller still sends is nobody's, but it must not stop the connection.
    stream.resume();
  }

  const context: CallContext = {
    get signal() {
      if (controller === undefined) {
        controller = new AbortController();
        if (over) controller.abort();
      }
      return controller.signal;
    },
    deadline,
    get peer() {
      const { remoteAddress, remotePort } = stream.session?.socket ?? {};
      return remoteAddress === undefined ? '' : `${remoteAddress}:${remotePort}`;
    },
    metadata(key) {
      const values = headers[key] ?? [];
      return typeof values === 'string' ? [values] : values;
    },
  };

  async function unpacked({ compressed, bytes }: Frame): Promise<Buffer> {
    return compressed ? unpack(bytes, encodingOf(headers), maxMessageBytes) : bytes;
  }

  /** A call of many messages is unfinished while it is inside one of them. It may take any time: it may be our turn. */
  function weigh(parts: Unfinished | undefined, bytes: number): Unfinished | undefined {
    if (bytes > 0) {
      const begun = parts ?? unfinished.begin(abort, 'patient');
      unfinished.keep(begun, bytes);
      return begun;
    }
    if (parts !== undefined) unfinished.done(parts);
    return undefined;
  }

  return {
    context,
    finish,
    abort,
    async request() {
      const deframer = createDeframer(maxMessageBytes);
      let first: Frame | undefined;
      const { promise, resolve, reject } = Promise.withResolvers<Frame>();
      fail = reject;
      if (over) reject(new AbortedError('the call is over'));
      const parts = unfinished.begin(reject, 'hurried');
      stream.on('data', (chunk: Buffer) => {
        if (over) return;
        try {
          for (const frame of deframer.push(chunk)) {
            if (first !== undefined) throw notOneMessage();
            first = frame;
          }
          unfinished.keep(parts, deframer.kept() + (first?.bytes.length ?? 0));
        } catch (error) {
          reject(error);
        }
      });
      stream.on('end', () => {
        try {
          deframer.end();
          if (first === undefined) throw notOneMessage();
          resolve(first);
        } catch (error) {
          reject(error);
        }
      });
      try {
        const frame = await promise;
        return frame.compressed ? unpacked(frame) : frame.bytes;
      } finally {
        unfinished.done(parts);
        fail = undefined;
      }
    },
    async *requests() {
      const deframer = createDeframer(maxMessageBytes);
      let parts: Unfinished | undefined;
      try {
        // Left alone on an early exit: the answers go out over the same stream.
        const chunks: AsyncIterable<Buffer> = stream.iterator({ destroyOnReturn: false });
        for await (const chunk of chunks) {
          const frames = deframer.push(chunk);
          parts = weigh(parts, deframer.kept());
          for (const frame of frames) yield await unpacked(frame);
        }
      } catch (error) {
        throw error instanceof StatusError ? error : new AbortedError('the call is over', { cause: error });
      } finally {
        weigh(parts, 0);
      }
      // A cancelled call can first look like one whose requests are complete, and tells the truth a moment later.
      await setImmediate();
      if (isOver()) throw new AbortedError('the call is over');
      deframer.end();
    },
    async send(message) {
      if (isOver()) throw new AbortedError('the call is over');
      begin();
      await writeMessage(stream, frameOf(message), context.signal);
    },
    answer(message) {
      if (isOver()) return;
      over = true;
      clearTimeout(timer);
      // Its handler is done: nobody needs to hear that the stream closes.
      controller = undefined;
      begin();
      stream.end(frameOf(message));
    },
  };
}

/**
 * Ends a stream on which everything was sent. A caller that has more to say would hold it open as long as it likes, so it
 * is told that nobody listens, with the status already on its way: RFC 9113, section 8.1.
 */
export function dismiss(stream: ServerHttp2Stream): void {
  if (stream.readableEnded) return;
  // In the same turn Node would let the reset overtake the status.
  afterThisTurn(() => {
    if (!stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
  });
}

/** V8 keeps a closed stream until its next full collection, so what hangs on it should not be much. */
function release(this: ServerHttp2Stream): void {
  for (const event of ['aborted', 'data', 'end', 'close']) this.removeAllListeners(event);
}

function notOneMessage(): StatusError {
  return new StatusError(Status.UNIMPLEMENTED, 'a call of this method has exactly one request message');
}

function encodingOf(headers: IncomingHttpHeaders): string {
  const encoding = headers['grpc-encoding'];
  return typeof encoding === 'string' ? encoding : 'identity';
}

function trailersOf({ code, details }: WireStatus): Readonly<Record<string, string>> {
  const status = { 'grpc-status': String(code) };
  return details === '' ? status : { ...status, 'grpc-message': encodeURI(details) };
}

/** The longest that Node's timers can wait. */
const maxTimerMs = 2 ** 31 - 1;
const unitMs: Readonly<Record<string, number>> = Object.freeze({
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
});

/** NaN for what is no timeout. */
function parseTimeout(text: string | readonly string[]): number {
  const [, digits, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(String(text)) ?? [];
  return Number(digits) * (unitMs[unit] ?? Number.NaN);
}
