import { messageCodec } from '../grpc/protos.ts';
import type { Service, UnaryMethod } from '../grpc/service.ts';
import { AbortedError, toAppError } from '../runtime/errors.ts';
import type { ResponseOptions } from './check-response.ts';
import type { CheckTrace } from './check-trace.ts';
import { boundCheckRequest } from './check-wire.ts';
import type { Checker } from './checker.ts';
import { type Outcome, reasonCodeOf } from './outcome.ts';
import { type ReasonCode, refuse } from './reason.ts';
import { createResponseEncoder } from './response-encoder.ts';
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

/**
 * `envoy.service.auth.v3.Authorization`. A Check is answered with a CheckResponse whatever is wrong, because under
 * failure_mode_allow a gRPC error that a client can provoke is an allow; only a caller that goes away gets an error.
 */
export function createExtAuthzService(options: ExtAuthzServiceOptions): Service {
  const { checker, meter, maxConcurrent, onDecision } = options;
  const request = messageCodec('envoy.service.auth.v3.CheckRequest');
  const encode = createResponseEncoder(options.response);
  const turn = createTurns();
  let underWay = 0;
  // Loads the .proto files now: the first Check has no time for that.
  request.decode(Buffer.alloc(0));

  function answer(trace: CheckTrace): Buffer {
    const { outcome, bytes } = encode(trace.outcome, trace.decisionId);
    const told = outcome === trace.outcome ? trace : { ...trace, outcome };
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

  const check: UnaryMethod<Buffer, Buffer> = {
    kind: 'unary',
    decode: (bytes) => bytes,
    encode: (response) => response,
    async handle(bytes, call) {
      if (underWay >= maxConcurrent) return answer(checker.refuseUnseen(overloaded));
      underWay += 1;
      try {
        if (bytes.length > heavyBytes) {
          await turn();
          if (call.signal.aborted) throw new AbortedError();
        }
        return answer(await checker.check(decode(bytes), call.signal, call.deadline));
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
