import type { JsonObject } from '../../policy/decision.ts';
import { constantsBeside, type InputParts, spiffeInput } from './input-parts.ts';

const facts: ReadonlySet<string> = new Set([
  'caller_spiffe_id',
  'callee_spiffe_id',
  'method',
  'path',
  'headers',
  'spiffe',
]);

/**
 * `{ caller_spiffe_id, callee_spiffe_id, action }` with `method`, `path` and `headers` beside. The action is the
 * query's, else the route's context extension `action`, else the method in lower case; the callee is our end.
 */
export function agentweaveInput(parts: InputParts): JsonObject {
  const { request, query, peer, destination } = parts;
  const http = request.attributes?.request?.http;
  const extensions = request.attributes?.contextExtensions;
  const action = query.set['action'] ?? extensions?.['action'] ?? http?.method?.toLowerCase();
  const input: Record<string, unknown> = { ...constantsBeside(facts, query.set), spiffe: spiffeInput(parts) };
  if (peer.id !== undefined) input['caller_spiffe_id'] = peer.id;
  if (destination !== undefined) input['callee_spiffe_id'] = destination;
  if (action !== undefined) input['action'] = action;
  if (http !== undefined) {
    if (http.method !== undefined) input['method'] = http.method;
    if (http.path !== undefined) input['path'] = http.path;
    input['headers'] = request.headers;
  }
  return input;
}
