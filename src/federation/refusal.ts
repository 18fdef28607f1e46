import { ServerIdentityError } from '../http/server-trust.ts';
import { RefusedAnswerError } from '../http/verified-get.ts';
import { AppError, type ErrorCode } from '../runtime/errors.ts';

/** Why a bundle was not taken, as a closed list for metrics. */
export type BundleRefusal =
  | 'unreachable'
  | 'timeout'
  | 'too_large'
  | 'bad_status'
  | 'bad_redirect'
  | 'too_many_redirects'
  | 'untrusted_server'
  | 'malformed'
  | 'sequence_rollback'
  | 'own_trust_domain'
  | 'other';

/** A bundle that is older than one already held: somebody replays it, or the server was set back. */
export class SequenceRollbackError extends AppError {
  constructor(message: string) {
    super('conflict', message);
  }
}

/** The refusal that an error of the fetch or of the store comes to. */
export function refusalOf(error: AppError): BundleRefusal {
  if (error instanceof ServerIdentityError) return 'untrusted_server';
  if (error instanceof RefusedAnswerError) return error.reason;
  if (error instanceof SequenceRollbackError) return 'sequence_rollback';
  return reasons[error.code] ?? 'other';
}

const reasons: Readonly<Partial<Record<ErrorCode, BundleRefusal>>> = Object.freeze({
  unavailable: 'unreachable',
  timeout: 'timeout',
  limit_exceeded: 'too_large',
  malformed: 'malformed',
  // The store's word for a bundle of our own trust domain.
  conflict: 'own_trust_domain',
});
