import { LimitError, MalformedError } from '../../runtime/errors.ts';
import type { CheckHttp, StringMap } from '../check-attributes.ts';
import { parseForm } from '../path-and-query.ts';
import { parseExactJson } from './exact-json.ts';
import { parseGrpcBody } from './grpc-body.ts';
import { parseMultipart } from './multipart.ts';
import type { ProtoTypes } from './proto-descriptor.ts';

/** How bodies are treated. */
export type BodyOptions = Readonly<{
  /** False leaves `parsed_body` and `truncated_body` out of the input. */
  parse: boolean;
  /** A body of a parsed type that is longer is a malformed request. */
  maxBytes: number;
  /** What gRPC bodies are read by; absent, they are not parsed. */
  protoTypes?: ProtoTypes | undefined;
}>;

/** `parsed` is null when there is nothing to parse, the type is not one of ours, or the body was cut off. */
export type ParsedBody = Readonly<{ parsed: unknown; truncated: boolean }>;

const nothing: ParsedBody = Object.freeze({ parsed: null, truncated: false });
const cutOff: ParsedBody = Object.freeze({ parsed: null, truncated: true });

/**
 * `parsed_body` and `truncated_body` as opa-envoy-plugin finds them: JSON, forms and multipart forms by a
 * case-sensitive look into content-type; gRPC by `protoTypes`, without which it is null. Throws MalformedError or
 * LimitError on a body that does not follow its type.
 */
export function parseBody(
  http: CheckHttp | undefined,
  headers: StringMap,
  maxBytes: number,
  protoTypes?: ProtoTypes,
): ParsedBody {
  // Envoy says so when it cut the body off at max_request_bytes; no other header is as reliable.
  if (headers['x-envoy-auth-partial-body'] === 'true') return cutOff;
  const contentType = headers['content-type'];
  if (http === undefined || contentType === undefined) return nothing;
  const kind = kindOf(contentType);
  if (kind === undefined) return nothing;
  if (kind === 'grpc') {
    // Only bytes can be a message, and how long they are says their frame.
    if (protoTypes === undefined || http.rawBody === undefined) return nothing;
    if (http.rawBody.length > maxBytes) throw new LimitError(`body is larger than ${maxBytes} bytes`);
    const request = { path: http.path ?? '', body: http.rawBody, encoding: headers['grpc-encoding'] };
    return parseGrpcBody(request, protoTypes, maxBytes);
  }
  const length = http.body === undefined ? (http.rawBody?.length ?? 0) : Buffer.byteLength(http.body);
  if (length === 0) return nothing;
  if (isTruncated(headers['content-length'], length)) return cutOff;
  if (length > maxBytes) throw new LimitError(`body is larger than ${maxBytes} bytes`);
  if (kind === 'json') return { parsed: parseExactJson(textOf(http)), truncated: false };
  if (kind === 'form') return { parsed: parseForm(textOf(http), 'form'), truncated: false };
  const bytes = http.body === undefined ? http.rawBody : Buffer.from(http.body);
  return { parsed: parseMultipart(contentType, bytes ?? Buffer.alloc(0)) ?? null, truncated: false };
}

// The order is the plugin's: application/grpc+json is gRPC, a JSON type wins over a parameter that names another.
function kindOf(contentType: string): 'grpc' | 'json' | 'form' | 'multipart' | undefined {
  if (contentType.includes('application/json')) return 'json';
  if (contentType.includes('application/grpc')) return 'grpc';
  if (contentType.includes('application/x-www-form-urlencoded')) return 'form';
  if (contentType.includes('multipart/form-data')) return 'multipart';
  return undefined;
}

function isTruncated(contentLength: string | undefined, length: number): boolean {
  if (contentLength === undefined) return false;
  if (
    !/^[+-]?\d{1,19}$/.test(contentLength) ||
    BigInt.asIntN(64, BigInt(contentLength)) !== BigInt(contentLength)
  ) {
    throw new MalformedError('content-length is not a number');
  }
  return BigInt(contentLength) > BigInt(length);
}

function textOf(http: CheckHttp): string {
  return http.body ?? http.rawBody?.toString('utf8') ?? '';
}
