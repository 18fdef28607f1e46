import type { JsonObject } from '../../policy/decision.ts';
import type { InputShape } from '../../policy/query-map.ts';
import { agentvaultInput } from './input-agentvault.ts';
import { agentweaveInput } from './input-agentweave.ts';
import { envoyInput } from './input-envoy.ts';
import type { InputParts } from './input-parts.ts';

const builders: Readonly<Record<InputShape, (parts: InputParts) => JsonObject>> = Object.freeze({
  envoy: envoyInput,
  agentvault: agentvaultInput,
  agentweave: agentweaveInput,
});

/**
 * The policy's input for a Check, in the shape that its query asks for. What was built here always wins over the
 * query's constants. Throws MalformedError or LimitError when path, query or body of the request cannot be read.
 */
export function buildPolicyInput(parts: InputParts): JsonObject {
  return builders[parts.query.input](parts);
}
