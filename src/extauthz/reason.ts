import type { DecisionDenyCode } from '../policy/decision.ts';
import type { EngineFailure } from '../policy/policy-engine.ts';

/** Why a Check was denied before any policy was asked. */
export type PeerReason =
  | 'no_peer_identity'
  | 'peer_mismatch'
  | 'untrusted_certificate'
  | 'untrusted_chain'
  | 'identity_denied'
  | 'identity_not_allowed'
  | 'foreign_trust_domain'
  | 'jwt_svid_invalid';

/** The closed list behind `reason_code`, in dynamic metadata, the decision log and metric labels. */
export type ReasonCode =
  | PeerReason
  | DecisionDenyCode
  | EngineFailure
  | 'malformed_request'
  | 'rate_limited'
  | 'unsafe_path'
  | 'no_query'
  | 'token_unavailable'
  | 'overloaded'
  | 'not_ready';

/** A refusal by one of our own rules. `message` is for the operator: it goes to the decision log, never to the client. */
export type Refusal = Readonly<{
  kind: 'deny';
  reasonCode: ReasonCode;
  message: string;
  /** When another try may pass, in seconds; told to the client. */
  retryAfterS?: number;
}>;

export function refuse(reasonCode: ReasonCode, message: string): Refusal {
  return Object.freeze({ kind: 'deny', reasonCode, message });
}

export function refuseForNow(reasonCode: ReasonCode, message: string, retryAfterS: number): Refusal {
  return Object.freeze({ kind: 'deny', reasonCode, message, retryAfterS });
}
