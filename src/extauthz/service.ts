import { messageCodec } from '../grpc/protos.ts';
import type { CallContext, Service, UnaryMethod } from '../grpc/service.ts';
import { withDeadline } from '../runtime/abort.ts';
import { AbortedError, TimeoutError, toAppError } from '../runtime/errors.ts';
import type { ResponseOptions } from './check-response.ts';
import type { CheckTrace } from './check-trace.ts';
import { boundCheckRequest } from './check-wire.ts';
import type { Checker } from './checker.ts';
import { type Outcome, reasonCodeOf } from './outcome.ts';
import { type ReasonCode, refuse } from './reason.ts';
import { createResponseEncoder } from './response-encoder.ts';
import { callTraceOf } from './trace-context.ts';
import { createTurns } from './turns.ts';

/** How a Check ended, for people and metrics: `dry_run` would have been another one. */
export type CheckResult = 'allow' | 'deny' | 'failure' | 'dry_run';

/** What the service counts; times in seconds. */
export interface ExtAuthzMeter {
  checked(result: CheckResult, reason: ReasonCode | 'none', seconds: number): void;
  evaluated(seconds: number): void;
}

export type ExtAuthzServiceOptions = Readonly<{
  checker: Checker;
  response: ResponseOptions;
  /** Checks under way at once; one more is refused at once, `overloaded`. */
  maxConcurrent: number;
  /** Bounds a Check with its wait for a turn, in milliseconds; the checker's own bound. */
  timeoutMs: number;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Milliseconds of a clock that never goes back. */
  monotonicNow: () => number;
  /** Sees every finished Check, with the outcome that went out. Must not throw. */
  onDecision: (trace: CheckTrace) => void;
  meter: ExtAuthzMeter;
}>;

const results: Readonly<Record<Outcome['kind'], CheckResult>> = Object.freeze({
  allowed: 'allow',
  lifted: 'dry_run',
  denied: 'deny',
  failed: 'failure',
  refused: 'deny',
});

export function resultOf(outcome: Outcome): CheckResult {
  return results[outcome.kind];
}

/** A Check that is larger is judged in a turn of its own; those without a body are far smaller. */
const heavyBytes = 64 * 1024;

const overloaded = refuse('overloaded', 'too many Checks at once: see ext_authz.limits.max_concurrent');
// Not engine_timeout: no engine was asked, and one that on_failure or dry_run lets pass would pass by sending much at once.
const noTurn = refuse(
  'overloaded',
  'large Checks waited for each other longer than policy.timeout: give Envoy a smaller max_request_bytes, or raise it',
);

/**
 * `envoy.service.auth.v3.Authorization`. A Check is answered with a CheckResponse whatever is wrong, because under
 * failure_mode_allow a gRPC error that a client can provoke is an allow; only a caller that goes away gets an error.
 */
export function createExtAuthzService(options: ExtAuthzServiceOptions): Service {
  const { checker, meter, maxConcurrent, timeoutMs, now, monotonicNow, onDecision } = options;
  const request = messageCodec('envoy.service.auth.v3.CheckRequest');
  const encode = createResponseEncoder(options.response);
  const turn = createTurns();
  let underWay = 0;
  // Loads the .proto files now: the first Check has no time for that.
  request.decode(Buffer.alloc(0));

  function answer(trace: CheckTrace, call: CallContext): Buffer {
    const { outcome, bytes } = encode(trace.outcome, trace.decisionId);
    const told = { ...trace, outcome, callTrace: callTraceOf(call.metadata) };
    meter.checked(resultOf(outcome), reasonCodeOf(outcome) ?? 'none', told.durationMs / 1e3);
    if (told.engineMs !== undefined) meter.evaluated(told.engineMs / 1e3);
    onDecision(told);
    return bytes;
  }

  function decode(bytes: Buffer): unknown {
    try {
      boundCheckRequest(bytes);
      return request.decode(bytes);
    } catch (error) {
      // Judged like any other request that cannot be read: a value that is no message is refused as malformed.
      return toAppError(error);
    }
  }

  /** Judges a large Check in its turn, or refuses it when there is none in its time. Rejects when the caller goes. */
  async function checkInTurn(bytes: Buffer, { signal, deadline }: CallContext): Promise<CheckTrace> {
    const began = monotonicNow();
    const budgetMs = deadline === undefined ? timeoutMs : Math.min(timeoutMs, deadline - now());
    const waitedMs = (): number => monotonicNow() - began;
    try {
      await withDeadline(Math.max(0, budgetMs), signal, turn);
    } catch (error) {
      if (error instanceof TimeoutError) return checker.refuseUnseen(noTurn, waitedMs());
      throw error;
    }
    if (signal.aborted) throw new AbortedError();
    const leftMs = budgetMs - waitedMs();
    // A loop that was busy for long may give the turn before it looks at timers.
    if (leftMs <= 0) return checker.refuseUnseen(noTurn, waitedMs());
    return checker.check(decode(bytes), signal, now() + leftMs);
  }

  const check: UnaryMethod<Buffer, Buffer> = {
    kind: 'unary',
    decode: (bytes) => bytes,
    encode: (response) => response,
    async handle(bytes, call) {
      if (underWay >= maxConcurrent) return answer(checker.refuseUnseen(overloaded), call);
      underWay += 1;
      try {
        return answer(
          bytes.length > heavyBytes
            ? await checkInTurn(bytes, call)
            : await checker.check(decode(bytes), call.signal, call.deadline),
          call,
        );
      } finally {
        underWay -= 1;
      }
    },
  };
  return Object.freeze({
    name: 'envoy.service.auth.v3.Authorization',
    methods: Object.freeze({ Check: check }),
  });
}
