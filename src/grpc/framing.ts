import { promisify } from 'node:util';
import { gunzip, type InputType, inflate, type ZlibOptions } from 'node:zlib';
import { Status, StatusError } from './status.ts';

/** One length-prefixed message as it came over the wire. */
export type Frame = Readonly<{ compressed: boolean; bytes: Buffer }>;

/** Cuts the bytes of one call into frames. */
export interface Deframer {
  /** The frames that `chunk` completes. Throws a StatusError for one that is too large or no frame. */
  push(chunk: Buffer): readonly Frame[];
  /** How much memory the beginning of a frame holds. */
  kept(): number;
  /** Throws a StatusError when the bytes so far end inside a frame. */
  end(): void;
}

const prefixBytes = 5;

/** What a receiver of messages can unpack, for grpc-accept-encoding. */
export const acceptedEncodings = 'identity,deflate,gzip';

/** Frames as in https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, none longer than `maxBytes`. */
export function createDeframer(maxBytes: number): Deframer {
  /** Its first `filled` bytes are the beginning of a frame. */
  let kept = nothing;
  let filled = 0;

  /** Moves bytes of `from` until `size` of them are kept; gives what is left over. */
  function fill(size: number, from: Buffer): Buffer {
    const taken = from.subarray(0, Math.max(0, size - filled));
    const needed = filled + taken.length;
    if (needed > kept.length) {
      const larger = Buffer.allocUnsafeSlow(Math.min(size, Math.max(needed, 2 * kept.length)));
      kept.copy(larger, 0, 0, filled);
      kept = larger;
    }
    taken.copy(kept, filled);
    filled = needed;
    return from.subarray(taken.length);
  }

  function finished(): Frame | undefined {
    if (filled < prefixBytes) return undefined;
    const end = prefixBytes + lengthIn(kept, maxBytes);
    if (filled < end) return undefined;
    const frame = frameIn(kept, end);
    kept = nothing;
    filled = 0;
    return frame;
  }

  return {
    push(chunk) {
      const frames: Frame[] = [];
      let rest = chunk;
      if (filled > 0) {
        rest = fill(prefixBytes, rest);
        if (filled >= prefixBytes) rest = fill(prefixBytes + lengthIn(kept, maxBytes), rest);
        const frame = finished();
        if (frame === undefined) return frames;
        frames.push(frame);
      }
      while (rest.length >= prefixBytes) {
        const end = prefixBytes + lengthIn(rest, maxBytes);
        if (rest.length < end) break;
        frames.push(frameIn(rest, end));
        rest = rest.subarray(end);
      }
      // Copied, as a few bytes would keep all that came over the socket with them.
      if (rest.length > 0) fill(rest.length, rest);
      return frames;
    },
    kept: () => kept.length,
    end() {
      if (filled > 0) throw new StatusError(Status.INTERNAL, 'request ends inside a message');
    },
  };
}

const nothing = Buffer.alloc(0);

function frameIn(bytes: Buffer, end: number): Frame {
  return { compressed: bytes[0] === 1, bytes: bytes.subarray(prefixBytes, end) };
}

function lengthIn(bytes: Buffer, maxBytes: number): number {
  const flag = bytes[0] ?? 0;
  if (flag > 1) throw new StatusError(Status.INTERNAL, 'message has an unknown flag');
  const length = bytes.readUInt32BE(1);
  if (length > maxBytes) throw tooLarge(maxBytes);
  return length;
}

/** The frame that carries `message`, not compressed. */
export function frameOf(message: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(prefixBytes + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  message.copy(frame, prefixBytes);
  return frame;
}

type Unpack = (packed: InputType, options: ZlibOptions) => Promise<Buffer>;

const unpackers: ReadonlyMap<string, Unpack> = new Map([
  ['gzip', promisify(gunzip) as Unpack],
  ['deflate', promisify(inflate) as Unpack],
]);

/** The message in a compressed frame of a call with that grpc-encoding. Rejects with a StatusError. */
export async function unpack(bytes: Buffer, encoding: string, maxBytes: number): Promise<Buffer> {
  if (encoding === 'identity')
    throw new StatusError(Status.INTERNAL, 'compressed message in a call without compression');
  const unpacker = unpackers.get(encoding);
  if (unpacker === undefined) {
    throw new StatusError(Status.UNIMPLEMENTED, `grpc-encoding is none of ${acceptedEncodings}`);
  }
  try {
    return await unpacker(bytes, { maxOutputLength: Math.max(1, maxBytes) });
  } catch (error) {
    if (error instanceof RangeError) throw tooLarge(maxBytes);
    throw new StatusError(Status.INTERNAL, 'message cannot be decompressed', { cause: error });
  }
}

function tooLarge(maxBytes: number): StatusError {
  return new StatusError(Status.RESOURCE_EXHAUSTED, `message is larger than ${maxBytes} bytes`);
}
