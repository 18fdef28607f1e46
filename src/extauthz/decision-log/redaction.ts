import type { JsonObject } from '../../policy/decision.ts';
import { MalformedError } from '../../runtime/errors.ts';

/** What the log shows of a decision, and the JSON pointers of what it does not. */
export type Redacted = Readonly<{ input: unknown; result: unknown; erased: readonly string[] }>;

export type Redactor = (decision: Readonly<{ input: unknown; result: unknown }>) => Redacted;

/** Headers that carry credentials whatever is configured; they go from wherever they stand in input or result. */
const credentialHeaders: readonly string[] = [
  'authorization',
  'proxy-authorization',
  'cookie',
  'set-cookie',
  'x-forwarded-client-cert',
];

/** The segments of a JSON pointer into `{input, result}`. */
export type Pointer = readonly string[];

/**
 * Makes the function that takes credentials out of a decision: headers that carry them, in every input shape, inside
 * `headerMap` and in results, certificates of the ends, and what the JSON pointers of `mask` name. The originals are
 * left as they are. `headers` names further headers that carry them. Throws MalformedError on a pointer that does not
 * start with /input or /result.
 */
export function createRedactor(mask: readonly string[], headers: readonly string[] = []): Redactor {
  const secret: ReadonlySet<string> = new Set(
    [...credentialHeaders, ...headers].map((name) => name.toLowerCase()),
  );
  const pointers = mask.map(parsePointer);
  return ({ input, result }) => {
    const erased: string[] = [];
    let document: unknown = {
      input: redact(input, '/input', secret, erased),
      result: redact(result, '/result', secret, erased),
    };
    for (const pointer of pointers) document = erase(document, pointer, erased);
    const redacted = document as { input?: unknown; result?: unknown };
    return { input: redacted.input, result: redacted.result, erased };
  };
}

/** Throws MalformedError when the pointer does not start with /input or /result. */
export function parsePointer(text: string): Pointer {
  const segments = text.split('/').map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
  if (segments[0] !== '' || (segments[1] !== 'input' && segments[1] !== 'result')) {
    throw new MalformedError(`mask "${text}" does not start with /input or /result`);
  }
  return segments.slice(1);
}

function redact(value: unknown, at: string, secret: ReadonlySet<string>, erased: string[]): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    let copy: unknown[] | undefined;
    value.forEach((item: unknown, index) => {
      const clean = redact(item, `${at}/${index}`, secret, erased);
      if (clean !== item) (copy ??= [...(value as unknown[])])[index] = clean;
    });
    return copy ?? value;
  }
  const from = value as JsonObject;
  const namesCredential = isCredential(from['key'], secret);
  let copy: Record<string, unknown> | undefined;
  for (const key of Object.keys(from)) {
    const member = from[key];
    if (
      isCredential(key, secret) ||
      (namesCredential && (key === 'value' || key === 'rawValue')) ||
      (key === 'certificate' && /\/(?:source|destination)$/.test(at))
    ) {
      copy ??= { ...from };
      delete copy[key];
      erased.push(`${at}/${escapeSegment(key)}`);
    } else if (typeof member === 'object' && member !== null) {
      const clean = redact(member, `${at}/${escapeSegment(key)}`, secret, erased);
      if (clean !== member) (copy ??= { ...from })[key] = clean;
    }
  }
  return copy ?? value;
}

function isCredential(name: unknown, secret: ReadonlySet<string>): boolean {
  return typeof name === 'string' && secret.has(name.toLowerCase());
}

/** `documents` without what the pointer names; what went is added to `erased`. The original is left as it is. */
export function erase(documents: unknown, pointer: Pointer, erased: string[]): unknown {
  return remove(documents, pointer, 0, '', erased);
}

/** A copy of `value` without what the pointer names, or `value` itself when that is not there. */
function remove(value: unknown, pointer: Pointer, depth: number, at: string, erased: string[]): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const segment = pointer[depth];
  if (segment === undefined) return value;
  if (Array.isArray(value)) {
    if (!/^\d{1,9}$/.test(segment) || Number(segment) >= value.length) return value;
    const copy: unknown[] = [...(value as unknown[])];
    const index = Number(segment);
    if (depth < pointer.length - 1) {
      copy[index] = remove(copy[index], pointer, depth + 1, `${at}/${segment}`, erased);
    } else {
      copy.splice(index, 1);
      erased.push(`${at}/${segment}`);
    }
    return copy;
  }
  const copy: Record<string, unknown> = { ...(value as JsonObject) };
  for (const key of matchingKeys(copy, segment, pointer[depth - 1] === 'headers')) {
    const path = `${at}/${escapeSegment(key)}`;
    if (depth < pointer.length - 1) {
      copy[key] = remove(copy[key], pointer, depth + 1, path, erased);
    } else {
      delete copy[key];
      erased.push(path);
    }
  }
  return copy;
}

// Header names have no case, so a mask that names one finds it however it is written.
function matchingKeys(value: JsonObject, segment: string, isHeader: boolean): string[] {
  if (!isHeader) return Object.hasOwn(value, segment) ? [segment] : [];
  return Object.keys(value).filter((key) => key.toLowerCase() === segment.toLowerCase());
}

function escapeSegment(key: string): string {
  return key.includes('~') || key.includes('/') ? key.replaceAll('~', '~0').replaceAll('/', '~1') : key;
}
