import type { JsonObject } from '../policy/decision.ts';
import { MalformedError, messageOf } from '../runtime/errors.ts';
import { encodeStruct } from './struct.ts';

/** Reads the JSON form of a field; `at` is its place, for the error. */
type Field = (value: unknown, at: string) => unknown;

/**
 * Reads a CheckRequest written as JSON, for people who want a Check explained: proto3 JSON with names in camel or snake
 * case, or the `input` of a decision log record, whose members beside `attributes` are left out. Gives what
 * decodeCheckRequest takes. Throws MalformedError, naming the member that is wrong or unknown.
 */
export function parseCheckRequestJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MalformedError(`CheckRequest is not valid JSON: ${messageOf(error)}`, { cause: error });
  }
  const top = { ...object(value, 'CheckRequest') };
  if ('attributes' in top) for (const name of besideAttributes) delete top[name];
  return checkRequest(top, '');
}

const besideAttributes = [
  'version',
  'parsed_path',
  'parsed_query',
  'parsed_body',
  'truncated_body',
  'source_principal',
  'spiffe',
];

function object(value: unknown, at: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new MalformedError(`${at} is not an object`);
}

/** A message: its fields by camel-case name. */
function message(fields: Readonly<Record<string, Field>>): Field {
  return (value, at) => {
    const to: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(object(value, at))) {
      const name = key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
      const place = at === '' ? key : `${at}.${key}`;
      const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
      if (field === undefined) throw new MalformedError(`CheckRequest has no member ${place}`);
      if (member !== null) to[name] = field(member, place);
    }
    return to;
  };
}

function mapOf(field: Field): Field {
  return (value, at) => {
    const to = Object.create(null) as Record<string, unknown>;
    for (const [key, member] of Object.entries(object(value, at))) to[key] = field(member, `${at}.${key}`);
    return to;
  };
}

const asIs: Field = (value) => value;

const base64: Field = (value, at) => {
  if (typeof value === 'string' && /^[A-Za-z0-9+/_-]*={0,2}$/.test(value))
    return Buffer.from(value, 'base64');
  throw new MalformedError(`${at} is not base64`);
};

const struct: Field = (value, at) => encodeStruct(object(value, at));

const timestampParts = message({ seconds: asIs, nanos: asIs });

/** RFC 3339, or the `{seconds, nanos}` of a policy's input. */
const timestamp: Field = (value, at) => {
  if (typeof value !== 'string') return timestampParts(value, at);
  const match = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:\d\d)$/.exec(value);
  const ms = Date.parse(value);
  if (match === null || Number.isNaN(ms)) throw new MalformedError(`${at} is not an RFC 3339 time`);
  return { seconds: Math.floor(ms / 1000), nanos: Number((match[1] ?? '').padEnd(9, '0')) };
};

const list =
  (field: Field): Field =>
  (value, at) => {
    if (!Array.isArray(value)) throw new MalformedError(`${at} is not a list`);
    return value.map((item: unknown, index) => field(item, `${at}[${index}]`));
  };

const socketAddress = message({
  protocol: asIs,
  address: asIs,
  portValue: asIs,
  namedPort: asIs,
  resolverName: asIs,
  ipv4Compat: asIs,
});

const peer = message({
  address: message({
    socketAddress,
    pipe: message({ path: asIs, mode: asIs }),
    envoyInternalAddress: message({ serverListenerName: asIs, endpointId: asIs }),
  }),
  service: asIs,
  labels: mapOf(asIs),
  principal: asIs,
  certificate: asIs,
});

const http = message({
  id: asIs,
  method: asIs,
  headers: mapOf(asIs),
  path: asIs,
  host: asIs,
  scheme: asIs,
  query: asIs,
  fragment: asIs,
  size: asIs,
  protocol: asIs,
  body: asIs,
  rawBody: base64,
  headerMap: message({ headers: list(message({ key: asIs, value: asIs, rawValue: base64 })) }),
});

const metadata = message({
  filterMetadata: mapOf(struct),
  typedFilterMetadata: mapOf(message({ typeUrl: asIs, value: base64 })),
});

const checkRequest = message({
  attributes: message({
    source: peer,
    destination: peer,
    request: message({ time: timestamp, http }),
    contextExtensions: mapOf(asIs),
    metadataContext: metadata,
    tlsSession: message({ sni: asIs }),
    routeMetadataContext: metadata,
  }),
});
