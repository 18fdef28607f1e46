import type { HeaderValueOption } from '../grpc/generated/envoy/config/core/v3/HeaderValueOption.ts';
import type { CheckResponse } from '../grpc/generated/envoy/service/auth/v3/CheckResponse.ts';
import type { DeniedHttpResponse } from '../grpc/generated/envoy/service/auth/v3/DeniedHttpResponse.ts';
import type { OkHttpResponse } from '../grpc/generated/envoy/service/auth/v3/OkHttpResponse.ts';
import type { StatusCode } from '../grpc/generated/envoy/type/v3/StatusCode.ts';
import { Status } from '../grpc/status.ts';
import type { AllowDecision, HeaderChange, JsonObject, NameValue } from '../policy/decision.ts';
import { type Forwarded, type Outcome, reasonCodeOf, reasonOf } from './outcome.ts';
import { queryText } from './query-changes.ts';
import type { ReasonCode } from './reason.ts';
import { encodeStruct } from './struct.ts';

/** How request headers that a policy sets meet those of the client. */
export type HeaderMode = 'overwrite' | 'opa_envoy_plugin';

export type ResponseOptions = Readonly<{
  headerMode: HeaderMode;
  /** What Envoy is told when the engine failed: a denial, or `error_response`, which Envoy ≥ 1.37 treats as an error. */
  onFailure: 'deny' | 'error';
}>;

/**
 * The CheckResponse for an outcome. What the operator is told of a problem never gets into it. Throws LimitError when a
 * policy's dynamic metadata is nested too deep for the wire.
 */
export function buildCheckResponse(
  outcome: Outcome,
  decisionId: string,
  options: ResponseOptions,
): CheckResponse {
  const dynamicMetadata = encodeStruct({
    ...metadataOf(outcome),
    ...(isNo(outcome) ? { reason: reasonOf(outcome), reason_code: reasonCodeOf(outcome) } : {}),
    decision_id: decisionId,
  });
  if (!isNo(outcome))
    return { status: { code: Status.OK }, ...okResponse(outcome, options), dynamicMetadata };
  const message = reasonCodeOf(outcome) ?? '';
  if (outcome.kind === 'failed' && options.onFailure === 'error') {
    // Without a status of its own, Envoy answers with its filter's status_on_error.
    return { status: { code: Status.UNAVAILABLE, message }, errorResponse: {}, dynamicMetadata };
  }
  return {
    status: { code: Status.PERMISSION_DENIED, message },
    deniedResponse: deniedResponse(outcome),
    dynamicMetadata,
  };
}

/** True when the response depends on nothing but the kind of outcome, its reason code and the decision ID. */
export function isPlain(outcome: Outcome): boolean {
  if (metadataOf(outcome) !== undefined) return false;
  if (!isNo(outcome) && credentialsOf(outcome).length > 0) return false;
  if (outcome.kind === 'allowed') return !hasMutations(outcome.decision);
  if (outcome.kind === 'refused') return outcome.refusal.retryAfterS === undefined;
  if (outcome.kind !== 'denied') return true;
  const { reason, code, headers, body, httpStatus } = outcome.decision;
  return reason === code && headers.length === 0 && body === undefined && httpStatus === 403;
}

type No = Exclude<Outcome, { kind: 'allowed' | 'lifted' }>;

function isNo(outcome: Outcome): outcome is No {
  return outcome.kind !== 'allowed' && outcome.kind !== 'lifted';
}

function credentialsOf({ credentials }: Forwarded): readonly NameValue[] {
  return credentials ?? [];
}

function metadataOf(outcome: Outcome): JsonObject | undefined {
  if (outcome.kind === 'lifted') return metadataOf(outcome.from);
  return outcome.kind === 'allowed' || outcome.kind === 'denied'
    ? outcome.decision.dynamicMetadata
    : undefined;
}

const statusOfRefusal: Readonly<Partial<Record<ReasonCode, StatusCode>>> = Object.freeze({
  malformed_request: 400,
  rate_limited: 429,
  overloaded: 503,
  not_ready: 503,
});

function deniedResponse(outcome: No): DeniedHttpResponse {
  if (outcome.kind === 'failed') return { status: { code: 403 } };
  if (outcome.kind === 'refused') {
    const { reasonCode, retryAfterS } = outcome.refusal;
    const status = { code: statusOfRefusal[reasonCode] ?? 403 };
    return retryAfterS === undefined
      ? { status }
      : { status, headers: [plainHeader({ name: 'retry-after', value: String(retryAfterS) })] };
  }
  const { headers, body, httpStatus } = outcome.decision;
  return {
    status: { code: httpStatus as StatusCode },
    // Envoy removes each name from its answer, then adds every value, so no mode is needed.
    headers: headers.map(plainHeader),
    ...(body === undefined ? {} : { body }),
  };
}

function hasMutations(decision: AllowDecision): boolean {
  return (
    decision.headers.length > 0 ||
    decision.requestHeadersToRemove.length > 0 ||
    decision.responseHeaders.length > 0 ||
    decision.queryParametersToRemove.length > 0 ||
    decision.queryParametersToSet.length > 0
  );
}

function okResponse(
  outcome: Exclude<Outcome, No>,
  { headerMode }: ResponseOptions,
): { okResponse?: OkHttpResponse } {
  const credentials = credentialsOf(outcome);
  // In no header mode may a header of the client's survive where a credential goes.
  const ours = changedHeaders(credentials, false);
  if (outcome.kind === 'lifted') return { okResponse: ours.length === 0 ? {} : { headers: ours } };
  const { decision } = outcome;
  if (!hasMutations(decision) && ours.length === 0) return {};
  const taken = new Set(credentials.map(({ name }) => name.toLowerCase()));
  const headers = decision.headers.filter(({ name }) => !taken.has(name.toLowerCase()));
  return {
    okResponse: {
      headers: [...changedHeaders(headers, headerMode === 'overwrite' ? false : undefined), ...ours],
      // Envoy removes after it has set.
      headersToRemove: decision.requestHeadersToRemove.filter((name) => !taken.has(name.toLowerCase())),
      // Unless the policy says otherwise, these add to what the upstream answers: overwriting would drop its cookies.
      responseHeadersToAdd: changedHeaders(decision.responseHeaders, undefined),
      queryParametersToSet: decision.queryParametersToSet.map(({ name, value }) => ({
        key: queryText(name, 'name'),
        value: queryText(value, 'value'),
      })),
      queryParametersToRemove: [...decision.queryParametersToRemove],
    },
  };
}

function plainHeader({ name, value }: NameValue): HeaderValueOption {
  return { header: { key: name, value } };
}

// Older Envoys read only `append`, newer ones `append_action` when `append` is unset: saying both, no version lets a
// header of the client's survive beside one that overwrites. Further values of such a name are appended to the first.
function changedHeaders(
  headers: readonly HeaderChange[],
  byDefault: boolean | undefined,
): HeaderValueOption[] {
  const seen = new Set<string>();
  return headers.map(({ name, value, append = byDefault }) => {
    if (append === undefined) return plainHeader({ name, value });
    const key = name.toLowerCase();
    const joins = append || seen.has(key);
    seen.add(key);
    return {
      header: { key: name, value },
      append: { value: joins },
      appendAction: joins ? 'APPEND_IF_EXISTS_OR_ADD' : 'OVERWRITE_IF_EXISTS_OR_ADD',
      // Envoy drops empty values, and with them the overwriting.
      ...(value === '' ? { keepEmptyValue: true } : {}),
    };
  });
}
