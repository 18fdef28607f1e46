import type { JsonValue } from '../runtime/json-value.ts';
import { isPathSegment } from '../spiffe/spiffe-id.ts';
import type { Captures } from './query-pattern.ts';

/** Fills the template; undefined when a capture may not stand where the template puts it. */
export type FilledTemplate = (captures: Captures) => JsonValue | undefined;

const reference = /\{([A-Za-z_][A-Za-z0-9_]*)\}/g;
const referenceInTrustDomain = /^spiffe:\/\/[^/]*\{/;

/**
 * Compiles one value of `set`. A capture inside a `spiffe://` value must be one valid path segment, so that no request
 * can write another SPIFFE ID than the template's author meant. `report` hears about unknown names.
 */
export function compileTemplate(
  value: JsonValue,
  names: ReadonlySet<string>,
  report: (path: string, message: string) => void,
): FilledTemplate {
  if (typeof value === 'string') return compileText(value, names, (message) => report('', message));
  if (typeof value !== 'object' || value === null) return () => value;
  if (isArray(value)) {
    const items = value.map((item, index) =>
      compileTemplate(item, names, (path, message) => report(`[${index}]${path}`, message)),
    );
    return (captures) => {
      const filled = items.map((item) => item(captures));
      return filled.includes(undefined) ? undefined : (filled as JsonValue[]);
    };
  }
  const fields = Object.entries(value).map(
    ([key, field]) =>
      [key, compileTemplate(field, names, (path, message) => report(`.${key}${path}`, message))] as const,
  );
  return (captures) => {
    const filled: [string, JsonValue][] = [];
    for (const [key, field] of fields) {
      const one = field(captures);
      if (one === undefined) return undefined;
      filled.push([key, one]);
    }
    return Object.fromEntries(filled);
  };
}

function compileText(
  text: string,
  names: ReadonlySet<string>,
  report: (message: string) => void,
): FilledTemplate {
  const used = [...text.matchAll(reference)].map((match) => match[1] ?? '');
  if (used.length === 0) return () => text;
  for (const name of used) {
    if (!names.has(name)) report(`{${name}} is not captured by this query's match`);
  }
  if (referenceInTrustDomain.test(text)) report('a capture cannot stand in the trust domain of a SPIFFE ID');
  const inSpiffeId = text.startsWith('spiffe://');
  return (captures) => {
    if (inSpiffeId && used.some((name) => !isPathSegment(captures[name] ?? ''))) return undefined;
    return text.replace(reference, (_, name: string) => captures[name] ?? '');
  };
}

function isArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}
