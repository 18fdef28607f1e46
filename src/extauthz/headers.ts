import type { CheckHttp, StringMap } from './check-attributes.ts';

const none: StringMap = Object.freeze(Object.create(null) as Record<string, string>);

/**
 * The headers by lower-case name. Envoy fills either `headers`, lower-case already and with the values of one name
 * joined by commas, or `header_map` (encode_raw_headers), which is brought to the same form.
 */
export function headersOf(http: CheckHttp | undefined): StringMap {
  if (http === undefined) return none;
  if (http.headers !== undefined) return lowerCased(http.headers);
  const entries = http.headerMap?.headers;
  if (entries === undefined) return none;
  const headers = Object.create(null) as Record<string, string>;
  for (const entry of entries) {
    append(headers, entry.key ?? '', entry.value ?? entry.rawValue?.toString('utf8') ?? '');
  }
  return headers;
}

function lowerCased(from: StringMap): StringMap {
  const names = Object.keys(from);
  if (names.every((name) => !/[A-Z]/.test(name))) return from;
  const headers = Object.create(null) as Record<string, string>;
  for (const name of names) append(headers, name, from[name] ?? '');
  return headers;
}

function append(headers: Record<string, string>, key: string, value: string): void {
  const name = key.toLowerCase();
  const before = headers[name];
  headers[name] = before === undefined ? value : `${before},${value}`;
}
