import { messageCodec } from '../grpc/protos.ts';
import { AppError } from '../runtime/errors.ts';
import { buildCheckResponse, isPlain, type ResponseOptions } from './check-response.ts';
import { type Denied, type Outcome, reasonCodeOf } from './outcome.ts';

/** The length of every decision ID: a UUID. */
const idLength = 36;
const placeholder = '#'.repeat(idLength);

/** The bytes of a CheckResponse, and the outcome they tell of: another one when the first could not be written. */
export type EncodedResponse = Readonly<{ outcome: Outcome; bytes: Buffer }>;

/**
 * Encodes outcomes. Responses without anything of the policy's own differ only in the decision ID, so they are encoded
 * once and stamped. A decision that the wire cannot hold becomes a denial, `malformed_decision`. Never throws.
 */
export function createResponseEncoder(
  options: ResponseOptions,
): (outcome: Outcome, decisionId: string) => EncodedResponse {
  const codec = messageCodec('envoy.service.auth.v3.CheckResponse');
  const stamps = new Map<string, (decisionId: string) => Buffer>();

  function encodePlain(outcome: Outcome, decisionId: string): Buffer {
    const key = `${outcome.kind} ${reasonCodeOf(outcome) ?? ''}`;
    let stamp = stamps.get(key);
    if (stamp === undefined) {
      stamp = createStamp(codec.encode(buildCheckResponse(outcome, placeholder, options)));
      stamps.set(key, stamp);
    }
    return stamp(decisionId);
  }

  return (outcome, decisionId) => {
    if (isPlain(outcome) && decisionId.length === idLength) {
      return { outcome, bytes: encodePlain(outcome, decisionId) };
    }
    try {
      return { outcome, bytes: codec.encode(buildCheckResponse(outcome, decisionId, options)) };
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      const denied = malformedDecision(`decision cannot be told to Envoy: ${error.message}`);
      const instead: Outcome = outcome.kind === 'lifted' ? { ...outcome, from: denied } : denied;
      return { outcome: instead, bytes: codec.encode(buildCheckResponse(instead, decisionId, options)) };
    }
  };
}

function createStamp(template: Buffer): (decisionId: string) => Buffer {
  const at = template.indexOf(placeholder);
  return (decisionId) => {
    const bytes = Buffer.from(template);
    bytes.write(decisionId, at, idLength, 'latin1');
    return bytes;
  };
}

function malformedDecision(problem: string): Denied {
  return {
    kind: 'denied',
    decision: {
      kind: 'deny',
      code: 'malformed_decision',
      reason: 'malformed_decision',
      problem,
      headers: [],
      body: undefined,
      httpStatus: 403,
      dynamicMetadata: undefined,
    },
  };
}
