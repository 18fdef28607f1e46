import { Status, StatusError } from './status.ts';

/** A request of which the end has not come; made by `begin`. */
export type Unfinished = {
  kept: number;
  late: boolean;
  readonly patient: boolean;
  readonly refuse: (reason: StatusError) => void;
};

/**
 * The requests of one server that are not whole yet: bounds on the memory that they hold and, but for the patient ones,
 * on the time that they take. An Envoy sends a Check when it has all of it, whatever its own client does, so only
 * somebody on our socket can meet these bounds, and a gRPC error is the right answer.
 */
export interface UnfinishedRequests {
  /** `refuse` is called once at most, and not after `done`. */
  begin(refuse: (reason: StatusError) => void, patience: 'hurried' | 'patient'): Unfinished;
  /** It holds `bytes` of memory by now. The oldest requests are refused, this one among them, when all hold too much. */
  keep(request: Unfinished, bytes: number): void;
  /** It is whole, or given up. More than once does no harm. */
  done(request: Unfinished): void;
}

/** A hurried request that is not whole `maxMs` milliseconds after it began is refused, before twice that time. */
export function createUnfinishedRequests(maxBytes: number, maxMs: number): UnfinishedRequests {
  /** Oldest first. */
  const requests = new Set<Unfinished>();
  let total = 0;
  let timer: NodeJS.Timeout | undefined;

  /** One timer for all of them, as nearly every request is whole in the turn in which it begins. */
  function sweep(): void {
    timer = undefined;
    for (const request of requests) {
      if (request.late) refuse(request, tooSlow(maxMs));
      else request.late = !request.patient;
    }
    if (requests.size > 0) watch();
  }

  function watch(): void {
    timer ??= setTimeout(sweep, maxMs).unref();
  }

  function done(request: Unfinished): void {
    if (requests.delete(request)) total -= request.kept;
  }

  function refuse(request: Unfinished, reason: StatusError): void {
    done(request);
    request.refuse(reason);
  }

  return Object.freeze({
    begin(refuseIt: Unfinished['refuse'], patience: 'hurried' | 'patient') {
      const request = { kept: 0, late: false, patient: patience === 'patient', refuse: refuseIt };
      requests.add(request);
      watch();
      return request;
    },
    keep(request: Unfinished, bytes: number) {
      if (!requests.has(request)) return;
      total += bytes - request.kept;
      request.kept = bytes;
      if (total <= maxBytes) return;
      for (const oldest of requests) {
        if (oldest.kept > 0) refuse(oldest, tooMuch());
        if (total <= maxBytes) return;
      }
    },
    done,
  });
}

function tooSlow(maxMs: number): StatusError {
  return new StatusError(Status.DEADLINE_EXCEEDED, `request was not whole after ${maxMs} ms`);
}

function tooMuch(): StatusError {
  return new StatusError(Status.RESOURCE_EXHAUSTED, 'too much of unfinished requests is held here');
}
