import type { JsonObject } from '../../policy/decision.ts';
import { parseBody } from '../body/body.ts';
import type { CheckAttributes, CheckHttp, CheckMetadata, StringMap } from '../check-attributes.ts';
import { parsePath, parseQuery } from '../path-and-query.ts';
import { constantsBeside, type InputParts, spiffeInput } from './input-parts.ts';

const version = Object.freeze({ ext_authz: 'v3', encoding: 'protojson' });

const facts: ReadonlySet<string> = new Set([
  'attributes',
  'version',
  'parsed_path',
  'parsed_query',
  'parsed_body',
  'truncated_body',
  'source_principal',
  'spiffe',
]);

/**
 * The document that opa-envoy-plugin builds, so that its policies run unchanged, with `spiffe` beside. One thing is
 * added: with `encode_raw_headers` Envoy fills only `headerMap`, and `headers` is made from it.
 */
export function envoyInput(parts: InputParts): JsonObject {
  const { request, query, body } = parts;
  const { attributes, headers } = request;
  const http = attributes?.request?.http;
  const path = http?.path ?? '';
  const input: Record<string, unknown> = {
    ...constantsBeside(facts, query.set),
    version,
    parsed_path: parsePath(path),
    parsed_query: parseQuery(path),
    spiffe: spiffeInput(parts),
  };
  if (attributes !== undefined) input['attributes'] = attributesDocument(attributes, headers);
  if (body.parse) {
    const { parsed, truncated } = parseBody(http, headers, body.maxBytes, body.protoTypes);
    input['parsed_body'] = parsed;
    input['truncated_body'] = truncated;
  }
  const principal = attributes?.source?.principal;
  if (principal !== undefined) input['source_principal'] = principal;
  return input;
}

// Attributes are a JSON document already, but for their bytes.
function attributesDocument(attributes: CheckAttributes, headers: StringMap): JsonObject {
  const { request, metadataContext, routeMetadataContext } = attributes;
  const document: Record<string, unknown> = { ...attributes };
  if (request?.http !== undefined) {
    const { rawBody, headerMap } = request.http;
    if (rawBody !== undefined || headerMap !== undefined) {
      document['request'] = { ...request, http: httpDocument(request.http, headers) };
    }
  }
  if (metadataContext?.typedFilterMetadata !== undefined) {
    document['metadataContext'] = metadataDocument(metadataContext);
  }
  if (routeMetadataContext?.typedFilterMetadata !== undefined) {
    document['routeMetadataContext'] = metadataDocument(routeMetadataContext);
  }
  return document;
}

function httpDocument(http: CheckHttp, headers: StringMap): JsonObject {
  const document: Record<string, unknown> = { ...http };
  if (http.rawBody !== undefined) document['rawBody'] = http.rawBody.toString('base64');
  const entries = http.headerMap?.headers;
  if (entries !== undefined) {
    document['headers'] = headers;
    document['headerMap'] = {
      headers: entries.map(({ rawValue, ...rest }) =>
        rawValue === undefined ? rest : { ...rest, rawValue: rawValue.toString('base64') },
      ),
    };
  }
  return document;
}

function metadataDocument(metadata: CheckMetadata): JsonObject {
  const typed = Object.create(null) as Record<string, JsonObject>;
  for (const [name, { typeUrl, value }] of Object.entries(metadata.typedFilterMetadata ?? {})) {
    typed[name] = {
      ...(typeUrl === undefined ? {} : { typeUrl }),
      ...(value === undefined ? {} : { value: value.toString('base64') }),
    };
  }
  return { ...metadata, typedFilterMetadata: typed };
}
