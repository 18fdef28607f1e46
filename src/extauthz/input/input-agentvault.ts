import type { JsonObject } from '../../policy/decision.ts';
import { type InputParts, spiffeInput } from './input-parts.ts';

/**
 * `{ subject: {id, type, role}, action, resource: {type, owner} }`. The ID is the peer's; all else comes from the
 * query's `set`, and what is not set is absent.
 */
export function agentvaultInput(parts: InputParts): JsonObject {
  const { query, peer } = parts;
  const subject: Record<string, unknown> = { ...asObject(query.set['subject']) };
  if (peer.id === undefined) delete subject['id'];
  else subject['id'] = peer.id;
  return { ...query.set, subject, spiffe: spiffeInput(parts) };
}

function asObject(value: unknown): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}
