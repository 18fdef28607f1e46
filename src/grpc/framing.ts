import { promisify } from 'node:util';
import { gunzip, type InputType, inflate, type ZlibOptions } from 'node:zlib';
import { Status, StatusError } from './status.ts';

/** One length-prefixed message as it came over the wire. */
export type Frame = Readonly<{ compressed: boolean; bytes: Buffer }>;

/** Cuts the bytes of one call into frames. */
export interface Deframer {
  /** The frames that `chunk` completes. Throws a StatusError for one that is too large or no frame. */
  push(chunk: Buffer): readonly Frame[];
  /** Throws a StatusError when the bytes so far end inside a frame. */
  end(): void;
}

const prefixBytes = 5;
const maxPieces = 256;

/** What a receiver of messages can unpack, for grpc-accept-encoding. */
export const acceptedEncodings = 'identity,deflate,gzip';

/** Frames as in https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, none longer than `maxBytes`. */
export function createDeframer(maxBytes: number): Deframer {
  let chunks: Buffer[] = [];
  /** How many of them, at the head, were put together from smaller ones. */
  let blocks = 0;
  let held = 0;
  /** Length of the frame that the bytes held begin with, its prefix included, once that is known. */
  let wanted = prefixBytes;

  function hold(bytes: Buffer): void {
    chunks = [bytes];
    blocks = 0;
    held = bytes.length;
  }

  /** A byte in a frame of its own keeps all of what was read from the socket with it. */
  function compact(): void {
    chunks.push(Buffer.concat(chunks.splice(blocks)));
    blocks += 1;
  }

  return {
    push(chunk) {
      chunks.push(chunk);
      held += chunk.length;
      if (chunks.length - blocks >= maxPieces) compact();
      const frames: Frame[] = [];
      while (held >= wanted) {
        const bytes = joined(chunks, held);
        const end = prefixBytes + lengthIn(bytes, maxBytes);
        if (end > held) {
          hold(bytes);
          wanted = end;
        } else {
          frames.push({ compressed: bytes[0] === 1, bytes: bytes.subarray(prefixBytes, end) });
          hold(bytes.subarray(end));
          wanted = prefixBytes;
        }
      }
      return frames;
    },
    end() {
      if (held > 0) throw new StatusError(Status.INTERNAL, 'request ends inside a message');
    },
  };
}

function joined(chunks: readonly Buffer[], length: number): Buffer {
  const [first] = chunks;
  return first !== undefined && first.length === length ? first : Buffer.concat(chunks, length);
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
