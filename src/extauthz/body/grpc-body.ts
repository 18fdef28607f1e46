import { gunzipSync } from 'node:zlib';
import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { parsePath } from '../path-and-query.ts';
import type { ProtoTypes } from './proto-descriptor.ts';
import { protoToJson } from './proto-json.ts';

const frameHeaderLength = 5;

/** `parsed` is the first message; null when nothing is known of the method, or it is not there as a whole. */
export type GrpcBody = Readonly<{ parsed: unknown; truncated: boolean }>;

/**
 * The first message of a gRPC request, by the descriptors of its service. Also read when it is compressed with gzip,
 * which opa-envoy-plugin does not do. Throws MalformedError or LimitError on a path, frame or message that cannot be read, or
 * that is larger than `maxBytes` once unpacked.
 */
export function parseGrpcBody(
  request: Readonly<{ path: string; body: Buffer; encoding: string | undefined }>,
  types: ProtoTypes,
  maxBytes: number,
): GrpcBody {
  const { path, body, encoding } = request;
  const [service, method, ...more] = parsePath(path);
  if (service === undefined || method === undefined || more.length > 0) {
    throw new MalformedError('path of a gRPC request is not /SERVICE/METHOD');
  }
  if (body.length < frameHeaderLength) throw new MalformedError('gRPC frame has less than 5 bytes');
  const compressed = body.readUInt8(0) !== 0;
  if (compressed && encoding !== 'gzip') return nothing;
  const end = frameHeaderLength + body.readUInt32BE(1);
  if (end > body.length) return cutOff;
  const input = types.methods.get(`${service}/${method}`);
  if (input === undefined || input.clientStreaming) return nothing;
  const frame = body.subarray(frameHeaderLength, end);
  const message = compressed ? unpack(frame, maxBytes) : frame;
  return { parsed: protoToJson(types, input.input, message), truncated: false };
}

const nothing: GrpcBody = Object.freeze({ parsed: null, truncated: false });
const cutOff: GrpcBody = Object.freeze({ parsed: null, truncated: true });

function unpack(frame: Buffer, maxBytes: number): Buffer {
  try {
    // A few bytes can stand for a thousand times as many; unpacking ends where the bound is.
    return gunzipSync(frame, { maxOutputLength: Math.max(1, maxBytes) });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new LimitError(`gRPC message is larger than ${maxBytes} bytes once unpacked`, { cause });
    }
    throw new MalformedError('gRPC message is not valid gzip', { cause });
  }
}
