/** One header or query parameter of a decision; several of the same name stay in the policy's order. */
export type NameValue = Readonly<{ name: string; value: string }>;

/**
 * A header of a decision. `append`: true joins it to what is there, false puts it in its place, undefined leaves that to
 * where it stands. All of one name say the same.
 */
export type HeaderChange = NameValue & Readonly<{ append?: boolean }>;

/** Reason codes of a deny that the result itself causes (the closed list of the product's rules). */
export type DecisionDenyCode =
  | 'policy_denied'
  | 'undefined_decision'
  | 'malformed_decision'
  | 'conflicting_decision';

export type AllowDecision = Readonly<{
  kind: 'allow';
  /** The policy's own words, when it gave any. */
  reason: string | undefined;
  /** Request headers on the way to the upstream. */
  headers: readonly HeaderChange[];
  requestHeadersToRemove: readonly string[];
  /** Headers added to the response on the way back to the client. */
  responseHeaders: readonly HeaderChange[];
  queryParametersToRemove: readonly string[];
  queryParametersToSet: readonly NameValue[];
  dynamicMetadata: JsonObject | undefined;
}>;

export type DenyDecision = Readonly<{
  kind: 'deny';
  code: DecisionDenyCode;
  /** The policy's own words, else the code. */
  reason: string;
  /** What is wrong with the result, for the log; never for the client. */
  problem: string | undefined;
  /** Headers of the denial. */
  headers: readonly HeaderChange[];
  body: string | undefined;
  httpStatus: number;
  dynamicMetadata: JsonObject | undefined;
}>;

export type Decision = AllowDecision | DenyDecision;
export type JsonObject = Readonly<Record<string, unknown>>;

const defaultDenyStatus = 403;

/**
 * Reads an engine's result (`undefined`: no rule produced one) as a decision: a boolean, an object with `allowed` and
 * opa-envoy-plugin's other keys, or an object with `allow`. Keys of the other branch and unknown keys are not looked
 * at. Whatever cannot be read is a deny; this never throws.
 */
export function parseDecision(value: unknown): Decision {
  if (value === undefined) return refusal('undefined_decision', 'no rule of the policy produced a decision');
  if (value === true) return allow({}, undefined);
  if (value === false) return deny({}, undefined);
  if (!isObject(value)) {
    return refusal('malformed_decision', `decision is ${kindOf(value)}, not a boolean or an object`);
  }
  const { allowed, allow: allowKey } = value;
  if (allowed === undefined && allowKey === undefined) {
    return refusal('malformed_decision', 'decision has neither "allowed" nor "allow"');
  }
  for (const [name, flag] of Object.entries({ allowed, allow: allowKey })) {
    if (flag !== undefined && typeof flag !== 'boolean') {
      return refusal('malformed_decision', `"${name}" is ${kindOf(flag)}, not a boolean`);
    }
  }
  if (allowed !== undefined && allowKey !== undefined && allowed !== allowKey) {
    return refusal('conflicting_decision', '"allowed" and "allow" of the decision disagree');
  }
  const reason = typeof value['reason'] === 'string' && value['reason'] !== '' ? value['reason'] : undefined;
  try {
    return (allowed ?? allowKey) === true ? allow(value, reason) : deny(value, reason);
  } catch (error) {
    if (error instanceof BadKey) return refusal('malformed_decision', error.message);
    throw error;
  }
}

/** Opa-envoy-plugin's `http_status` values: what Envoy's StatusCode enum and Go's net/http both know. */
function isDenyStatus(code: unknown): code is number {
  if (typeof code !== 'number' || !Number.isInteger(code)) return false;
  return (
    code === 100 ||
    (code >= 200 && code <= 208) ||
    code === 226 ||
    (code >= 300 && code <= 308 && code !== 306) ||
    (code >= 400 && code <= 417) ||
    (code >= 421 && code <= 424) ||
    [426, 428, 429, 431].includes(code) ||
    (code >= 500 && code <= 508) ||
    code === 510 ||
    code === 511
  );
}

class BadKey extends Error {}

function allow(object: JsonObject, reason: string | undefined): AllowDecision {
  const headers = headerValues(object, 'headers');
  const dynamicMetadata = metadata(object);
  return Object.freeze({
    kind: 'allow',
    reason,
    headers,
    dynamicMetadata,
    requestHeadersToRemove: strings(object, 'request_headers_to_remove'),
    responseHeaders: headerValues(object, 'response_headers_to_add'),
    queryParametersToRemove: strings(object, 'query_parameters_to_remove'),
    queryParametersToSet: queryParameters(object, 'query_parameters_to_set'),
  });
}

function deny(object: JsonObject, reason: string | undefined): DenyDecision {
  const headers = headerValues(object, 'headers');
  const dynamicMetadata = metadata(object);
  const { body, http_status: status = defaultDenyStatus } = object;
  if (body !== undefined && typeof body !== 'string')
    throw new BadKey(`"body" is ${kindOf(body)}, not a string`);
  if (!isDenyStatus(status)) throw new BadKey('"http_status" is not an HTTP status code that Envoy knows');
  return Object.freeze({
    kind: 'deny',
    code: 'policy_denied',
    reason: reason ?? 'policy_denied',
    problem: undefined,
    headers,
    body,
    httpStatus: status,
    dynamicMetadata,
  });
}

function refusal(code: Exclude<DecisionDenyCode, 'policy_denied'>, problem: string): DenyDecision {
  return Object.freeze({
    kind: 'deny',
    code,
    reason: code,
    problem,
    headers: none,
    body: undefined,
    httpStatus: defaultDenyStatus,
    dynamicMetadata: undefined,
  });
}

const none: readonly never[] = Object.freeze([]);

/** An object of name → string, [strings] or {value: either, append: boolean}, or an array of such objects. */
function headerValues(object: JsonObject, key: string): readonly HeaderChange[] {
  const value = object[key];
  if (value === undefined) return none;
  const groups: readonly unknown[] = Array.isArray(value) ? value : [value];
  const headers = checkHeaders(
    groups.flatMap((group) => headersOfGroup(group, key)),
    key,
  );
  const modes = new Map<string, boolean | undefined>();
  for (const { name, append } of headers) {
    const lower = name.toLowerCase();
    // Envoys differ in what they do first.
    if (modes.has(lower) && modes.get(lower) !== append) {
      throw new BadKey(`"${key}" has a name with values to append and others`);
    }
    modes.set(lower, append);
  }
  return Object.freeze(headers);
}

function headersOfGroup(group: unknown, key: string): HeaderChange[] {
  return entriesOf(group, key).flatMap(([name, value]): HeaderChange[] => {
    if (!isObject(value)) return valuesOf(name, value, key);
    const { value: values, append, ...others } = value;
    if (typeof append !== 'boolean' || Object.keys(others).length > 0) {
      throw new BadKey(`"${key}" has an object that is not {"value": …, "append": true or false}`);
    }
    const changes = valuesOf(name, values, key).map((one) => Object.freeze({ ...one, append }));
    // Envoy would leave a header that a client may have written.
    if (!append && changes.length === 0) throw new BadKey(`"${key}" has no value to put in place of another`);
    // Envoy joins what can only be one with a comma.
    if (append && /^(?::.*|host)$/i.test(name)) throw new BadKey(`"${key}" appends to a header of one value`);
    return changes;
  });
}

function queryParameters(object: JsonObject, key: string): readonly NameValue[] {
  const value = object[key];
  return value === undefined
    ? none
    : Object.freeze(entriesOf(value, key).flatMap(([name, values]) => valuesOf(name, values, key)));
}

function entriesOf(group: unknown, key: string): readonly [string, unknown][] {
  if (isObject(group)) return Object.entries(group);
  throw new BadKey(`"${key}" has ${kindOf(group)} where an object of strings is expected`);
}

function valuesOf(name: string, value: unknown, key: string): NameValue[] {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value];
  return values.map((one) => Object.freeze({ name: clean(name, key, 1), value: clean(one, key, 0) }));
}

/**
 * A length other than the body's would have the next request on the connection, which may be another's, read as part of
 * this one. Envoy refuses other broken names and values for requests, but not for responses.
 */
function checkHeaders(headers: readonly HeaderChange[], key: string): readonly HeaderChange[] {
  for (const { name, value } of headers) {
    if (/^(?:content-length|transfer-encoding)$/i.test(name)) throw new BadKey(`"${key}" cannot set ${name}`);
    if (!/^:?[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name))
      throw new BadKey(`"${key}" has a name that no header has`);
    // oxlint-disable-next-line no-control-regex -- those are what is looked for
    if (/[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(value)) throw new BadKey(`"${key}" has a control character`);
  }
  return headers;
}

function strings(object: JsonObject, key: string): readonly string[] {
  const value = object[key];
  if (value === undefined) return none;
  if (!Array.isArray(value)) throw new BadKey(`"${key}" is ${kindOf(value)}, not an array of strings`);
  return Object.freeze(value.map((one: unknown) => clean(one, key, 1)));
}

function metadata(object: JsonObject): JsonObject | undefined {
  const value = object['dynamic_metadata'];
  if (value === undefined || isObject(value)) return value;
  throw new BadKey(`"dynamic_metadata" is ${kindOf(value)}, not an object`);
}

/** A line break in a header would let a policy that echoes its input write further headers. */
function clean(value: unknown, key: string, minLength: number): string {
  if (typeof value !== 'string') throw new BadKey(`"${key}" has ${kindOf(value)} where a string is expected`);
  if (value.length < minLength) throw new BadKey(`"${key}" has an empty name`);
  // oxlint-disable-next-line no-control-regex -- those are what is looked for
  if (/[\0\r\n]/.test(value)) throw new BadKey(`"${key}" has a line break or a zero byte`);
  return value;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
