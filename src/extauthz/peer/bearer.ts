import type { StringMap } from '../check-attributes.ts';

/** A token found in a header, and the scheme that stood before it; empty for none. */
export type FoundToken = Readonly<{ token: string; scheme: string }>;

/**
 * The bearer token in `header` (lower case): behind the scheme Bearer, or in a header other than authorization also on
 * its own. Undefined when there is none; credentials of another scheme are none.
 */
export function findToken(headers: StringMap, header: string): FoundToken | undefined {
  const value = headers[header];
  if (value === undefined || value === '') return undefined;
  const bearer = /^bearer +([^]*)$/i.exec(value)?.[1];
  if (bearer !== undefined) return { token: bearer.trimEnd(), scheme: 'Bearer' };
  return header === 'authorization' ? undefined : { token: value, scheme: '' };
}
