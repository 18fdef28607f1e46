import type { JsonObject } from '../policy/decision.ts';
import { AppError, LimitError, MalformedError } from '../runtime/errors.ts';
import { rawNumber } from './body/exact-json.ts';
import type {
  CheckAddress,
  CheckAttributes,
  CheckHttp,
  CheckMetadata,
  CheckPeer,
  CheckRequest,
  RawHeader,
  StringMap,
} from './check-attributes.ts';
import { headersOf } from './headers.ts';
import { decodeStructFields } from './struct.ts';

const maxMapEntries = 2_000;
const maxPrincipalLength = 8 * 1024;
const maxCertificateLength = 64 * 1024;
/** Of one text that is no body. */
const maxTextLength = 256 * 1024;
/** Of all texts of one table together, headers for one. */
const maxTableLength = 512 * 1024;

/**
 * Reads a decoded CheckRequest (camel case, 64-bit numbers as text, bytes as Buffers, as grpc/protos.ts gives it).
 * Nothing in it is trusted: a member of the wrong type is a MalformedError, one too large a LimitError. Members it does
 * not know are left out; absent ones stay absent, so requests of the TCP filter and path-less ones (CONNECT) are fine.
 */
export function decodeCheckRequest(message: unknown): CheckRequest {
  // Bytes that were no message arrive here as the error they caused.
  if (message instanceof AppError) throw message;
  const attributes = optional(object(message, 'CheckRequest').attributes, 'attributes', decodeAttributes);
  return Object.freeze({ attributes, headers: headersOf(attributes?.request?.http) });
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function decodeAttributes(from: JsonObject): CheckAttributes {
  const to: Mutable<CheckAttributes> = {};
  const source = optional(from.source, 'source', decodePeer);
  if (source !== undefined) to.source = source;
  const destination = optional(from.destination, 'destination', decodePeer);
  if (destination !== undefined) to.destination = destination;
  const request = optional(from.request, 'request', decodeRequest);
  if (request !== undefined) to.request = request;
  const extensions = stringMap(from.contextExtensions, 'context_extensions');
  if (extensions !== undefined) to.contextExtensions = extensions;
  const metadata = optional(from.metadataContext, 'metadata_context', decodeMetadata);
  if (metadata !== undefined) to.metadataContext = metadata;
  const tls = optional(from.tlsSession, 'tls_session', (session) => copyStrings(session, ['sni']));
  if (tls !== undefined) to.tlsSession = tls;
  const route = optional(from.routeMetadataContext, 'route_metadata_context', decodeMetadata);
  if (route !== undefined) to.routeMetadataContext = route;
  return to;
}

function decodePeer(from: JsonObject): CheckPeer {
  const to: Mutable<CheckPeer> = copyStrings(from, ['service', 'principal', 'certificate']);
  if ((to.principal?.length ?? 0) > maxPrincipalLength) throw new LimitError('principal is too long');
  if ((to.certificate?.length ?? 0) > maxCertificateLength) throw new LimitError('certificate is too long');
  const address = optional(from.address, 'address', decodeAddress);
  if (address !== undefined) to.address = address;
  const labels = stringMap(from.labels, 'labels');
  if (labels !== undefined) to.labels = labels;
  return to;
}

function decodeAddress(from: JsonObject): CheckAddress {
  const socketAddress = optional(from.socketAddress, 'socket_address', decodeSocketAddress);
  if (socketAddress !== undefined) return { socketAddress };
  const pipe = optional(from.pipe, 'pipe', (p) => ({
    ...copyStrings(p, ['path']),
    ...copyNumber(p, 'mode'),
  }));
  if (pipe !== undefined) return { pipe };
  const internal = optional(from.envoyInternalAddress, 'envoy_internal_address', decodeInternalAddress);
  return internal === undefined ? {} : { envoyInternalAddress: internal };
}

function decodeSocketAddress(from: JsonObject): JsonObject {
  const to: Record<string, unknown> = copyStrings(from, [
    'address',
    'resolverName',
    'networkNamespaceFilepath',
  ]);
  if (from.protocol === 'UDP') to.protocol = 1;
  // Values that are newer than our copy of the API come as numbers.
  else if (typeof from.protocol === 'number' && from.protocol !== 0) to.protocol = from.protocol;
  // Members of a oneof are there even when they are zero.
  if (isSet(from.portValue)) to.portValue = number(from.portValue, 'port_value');
  else if (isSet(from.namedPort)) to.namedPort = text(from.namedPort, 'named_port');
  if (from.ipv4Compat === true) to.ipv4Compat = true;
  return to;
}

function decodeInternalAddress(from: JsonObject): JsonObject {
  const to: Record<string, unknown> = copyStrings(from, ['endpointId']);
  if (isSet(from.serverListenerName))
    to.serverListenerName = text(from.serverListenerName, 'server_listener_name');
  return to;
}

function decodeRequest(from: JsonObject): NonNullable<CheckAttributes['request']> {
  const to: Mutable<NonNullable<CheckAttributes['request']>> = {};
  const time = optional(from.time, 'time', (t) => {
    const seconds = int64(t.seconds, 'seconds');
    return { ...(seconds === undefined ? {} : { seconds }), ...copyNumber(t, 'nanos') };
  });
  if (time !== undefined) to.time = time;
  const http = optional(from.http, 'http', decodeHttp);
  if (http !== undefined) to.http = http;
  return to;
}

const httpStrings = ['id', 'method', 'path', 'host', 'scheme', 'query', 'fragment', 'protocol'] as const;

function decodeHttp(from: JsonObject): CheckHttp {
  const to: Mutable<CheckHttp> = copyStrings(from, httpStrings);
  const body = optionalText(from.body, 'body');
  if (body !== undefined) to.body = body;
  const headers = stringMap(from.headers, 'headers');
  if (headers !== undefined) to.headers = headers;
  const size = int64(from.size, 'size');
  if (size !== undefined) to.size = size;
  const rawBody = bytes(from.rawBody, 'raw_body');
  if (rawBody !== undefined) to.rawBody = rawBody;
  const headerMap = optional(from.headerMap, 'header_map', decodeHeaderMap);
  if (headerMap !== undefined) to.headerMap = headerMap;
  return to;
}

function decodeHeaderMap(from: JsonObject): NonNullable<CheckHttp['headerMap']> {
  if (!isSet(from.headers)) return {};
  if (!Array.isArray(from.headers)) throw new MalformedError('header_map.headers is not a list');
  if (from.headers.length > maxMapEntries) throw new LimitError('header_map has too many headers');
  let length = 0;
  const headers = from.headers.map((entry: unknown): RawHeader => {
    const header = object(entry, 'header');
    const rawValue = bytes(header.rawValue, 'raw_value');
    const texts: RawHeader = copyStrings(header, ['key', 'value']);
    length += (texts.key?.length ?? 0) + (texts.value?.length ?? 0) + (rawValue?.length ?? 0);
    if (length > maxTableLength) throw new LimitError('header_map is too long');
    return rawValue === undefined ? texts : { ...texts, rawValue };
  });
  return headers.length === 0 ? {} : { headers };
}

function decodeMetadata(from: JsonObject): CheckMetadata {
  const to: Mutable<CheckMetadata> = {};
  const plain = table(from.filterMetadata, 'filter_metadata', (struct, name) =>
    decodeStructFields(object(struct, name).fields),
  );
  if (plain !== undefined) to.filterMetadata = plain;
  const typed = table(from.typedFilterMetadata, 'typed_filter_metadata', (any, name) => {
    const message = object(any, name);
    const typeUrl = optionalText(message.typeUrl ?? message.type_url, 'type_url');
    const value = bytes(message.value, 'value');
    return { ...(typeUrl === undefined ? {} : { typeUrl }), ...(value === undefined ? {} : { value }) };
  });
  if (typed !== undefined) to.typedFilterMetadata = typed;
  return to;
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function object(value: unknown, name: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Buffer.isBuffer(value)) {
    throw new MalformedError(`${name} is not a message`);
  }
  return value as JsonObject;
}

function optional<T>(value: unknown, name: string, decode: (message: JsonObject) => T): T | undefined {
  return isSet(value) ? decode(object(value, name)) : undefined;
}

function text(value: unknown, name: string): string {
  if (typeof value !== 'string') throw new MalformedError(`${name} is not text`);
  return value;
}

function optionalText(value: unknown, name: string): string | undefined {
  return !isSet(value) || value === '' ? undefined : text(value, name);
}

function copyStrings<K extends string>(from: JsonObject, names: readonly K[]): { [N in K]?: string } {
  const to: { [N in K]?: string } = {};
  for (const name of names) {
    const value = optionalText(from[name], name);
    if (value === undefined) continue;
    if (value.length > maxTextLength) throw new LimitError(`${name} is too long`);
    to[name] = value;
  }
  return to;
}

function number(value: unknown, name: string): number {
  const parsed = typeof value === 'string' && /^-?\d{1,19}$/.test(value) ? Number(value) : value;
  if (typeof parsed !== 'number' || !Number.isFinite(parsed))
    throw new MalformedError(`${name} is not a number`);
  return parsed;
}

function copyNumber<K extends string>(from: JsonObject, name: K): { [N in K]?: number } {
  const value = isSet(from[name]) ? number(from[name], name) : 0;
  return (value === 0 ? {} : { [name]: value }) as { [N in K]?: number };
}

function int64(value: unknown, name: string): unknown {
  if (!isSet(value)) return undefined;
  const parsed = number(value, name);
  if (parsed === 0) return undefined;
  return Number.isSafeInteger(parsed) || typeof value !== 'string'
    ? parsed
    : rawNumber(BigInt(value).toString());
}

function bytes(value: unknown, name: string): Buffer | undefined {
  if (!isSet(value)) return undefined;
  if (!Buffer.isBuffer(value)) throw new MalformedError(`${name} is not bytes`);
  return value.length === 0 ? undefined : value;
}

function stringMap(value: unknown, name: string): StringMap | undefined {
  let length = 0;
  return table(value, name, (member, of, key) => {
    const string = text(member, of);
    length += key.length + string.length;
    if (length > maxTableLength) throw new LimitError(`${name} is too long`);
    return string;
  });
}

function table<T>(
  value: unknown,
  name: string,
  decode: (value: unknown, name: string, key: string) => T,
): Readonly<Record<string, T>> | undefined {
  if (!isSet(value)) return undefined;
  const from = object(value, name);
  const keys = Object.keys(from);
  if (keys.length === 0) return undefined;
  if (keys.length > maxMapEntries) throw new LimitError(`${name} has too many entries`);
  const to = Object.create(null) as Record<string, T>;
  for (const key of keys) to[key] = decode(from[key], name, key);
  return to;
}
