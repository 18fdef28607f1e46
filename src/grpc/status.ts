import { AppError, type ErrorCode } from '../runtime/errors.ts';

/** The gRPC status codes, by their names in the gRPC specification. */
export const Status = Object.freeze({
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
});

/**
 * A gRPC status as an error: what a call of ours ended with, or what a handler of ours wants told to its caller as it
 * stands. `details` is the text that goes over the wire.
 */
export class StatusError extends AppError {
  readonly status: number;
  readonly details: string;

  constructor(status: number, details: string, options?: { cause?: unknown }) {
    super(codeOf(status), `${nameOf(status)}: ${details === '' ? 'no details given' : details}`, options);
    this.status = status;
    this.details = details;
  }
}

const names = Object.freeze(Object.keys(Status));

/** A status ready for the wire. */
export type WireStatus = Readonly<{ code: number; details: string }>;

const maxDetails = 1024;

const statusByCode: Readonly<Record<ErrorCode, number>> = Object.freeze({
  malformed: Status.INVALID_ARGUMENT,
  invalid_argument: Status.INVALID_ARGUMENT,
  not_found: Status.NOT_FOUND,
  permission_denied: Status.PERMISSION_DENIED,
  unavailable: Status.UNAVAILABLE,
  unimplemented: Status.UNIMPLEMENTED,
  timeout: Status.DEADLINE_EXCEEDED,
  aborted: Status.CANCELLED,
  limit_exceeded: Status.RESOURCE_EXHAUSTED,
  conflict: Status.ABORTED,
  config: Status.INTERNAL,
  internal: Status.INTERNAL,
});

/**
 * How a handler's error is told to the caller. A StatusError goes out as it is, another AppError with its message
 * under the status its code stands for; of anything else the caller learns nothing but that it happened.
 */
export function toWireStatus(error: unknown): WireStatus {
  if (error instanceof StatusError) return wire(error.status, error.details);
  if (!(error instanceof AppError)) return wire(Status.INTERNAL, 'internal error');
  const code = statusByCode[error.code];
  return wire(code, code === Status.INTERNAL ? 'internal error' : error.message);
}

/** The name of a status code, e.g. `UNAVAILABLE`, or `status 99` for one that has none. */
export function nameOf(status: number): string {
  return names[status] ?? `status ${status}`;
}

function wire(code: number, details: string): WireStatus {
  // Details go over the wire by encodeURI, which throws on a lone surrogate.
  return { code, details: details.slice(0, maxDetails).toWellFormed() };
}

function codeOf(status: number): ErrorCode {
  switch (status) {
    case Status.INVALID_ARGUMENT:
    case Status.OUT_OF_RANGE:
      return 'invalid_argument';
    case Status.NOT_FOUND:
      return 'not_found';
    case Status.PERMISSION_DENIED:
    case Status.UNAUTHENTICATED:
      return 'permission_denied';
    case Status.UNAVAILABLE:
      return 'unavailable';
    case Status.UNIMPLEMENTED:
      return 'unimplemented';
    case Status.DEADLINE_EXCEEDED:
      return 'timeout';
    case Status.CANCELLED:
      return 'aborted';
    case Status.RESOURCE_EXHAUSTED:
      return 'limit_exceeded';
    case Status.ABORTED:
    case Status.ALREADY_EXISTS:
    case Status.FAILED_PRECONDITION:
      return 'conflict';
    default:
      return 'internal';
  }
}
