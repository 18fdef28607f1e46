import type { CallContext } from '../grpc/service.ts';
import type { StringMap } from './check-attributes.ts';

/** Which trace a request belongs to: 32 and 16 hexadecimal digits, lower case. */
export type TraceContext = Readonly<{
  traceId: string;
  spanId: string;
  /** Whether the caller records its part of the trace; undefined when it leaves that open, as B3 may. */
  sampled: boolean | undefined;
}>;

const noTrace = '0'.repeat(32);
const noSpan = '0'.repeat(16);

/**
 * The trace of a request by its headers, names in lower case: W3C `traceparent`, else B3 in one header, else B3 in
 * several. A header that is not well formed counts as absent; undefined when none is left.
 */
export function traceContextOf(headers: StringMap): TraceContext | undefined {
  return (
    w3c(headers['traceparent']) ??
    b3(headers['b3']) ??
    context(hex128(headers['x-b3-traceid']), hex64(headers['x-b3-spanid']), b3Sampled(headers))
  );
}

const names = ['traceparent', 'b3', 'x-b3-traceid', 'x-b3-spanid', 'x-b3-sampled', 'x-b3-flags'];

/** The trace of a call by its metadata, where an Envoy that traces names its own span. */
export function callTraceOf(metadata: CallContext['metadata']): TraceContext | undefined {
  const entries = names.flatMap((name) =>
    metadata(name)
      .slice(0, 1)
      .map((value) => [name, value]),
  );
  return entries.length === 0 ? undefined : traceContextOf(Object.fromEntries(entries));
}

/** Trace Context §3.2: version 00 has four fields; a later one may have more, and ff is none. */
function w3c(value: string | undefined): TraceContext | undefined {
  const match = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(bounded(value));
  if (match === null || match[1] === 'ff' || (match[1] === '00' && match[5] !== undefined)) return undefined;
  return context(match[2], match[3], (Number.parseInt(match[4] ?? '', 16) & 1) === 1);
}

/** `TRACE-SPAN[-SAMPLING[-PARENT]]`; a sampling state alone names no trace. */
function b3(value: string | undefined): TraceContext | undefined {
  const [trace, span, sampling, parent = noSpan, ...more] = bounded(value).split('-');
  if (more.length > 0 || !/^[01d]?$/.test(sampling ?? '') || hex64(parent) === undefined) return undefined;
  return context(hex128(trace), hex64(span), sampling === undefined ? undefined : sampling !== '0');
}

/** `x-b3-flags: 1` is a demand to record. */
function b3Sampled(headers: StringMap): boolean | undefined {
  if (headers['x-b3-flags'] === '1') return true;
  const sampled = headers['x-b3-sampled'];
  if (sampled === '1' || sampled === 'true') return true;
  return sampled === '0' || sampled === 'false' ? false : undefined;
}

function context(
  traceId: string | undefined,
  spanId: string | undefined,
  sampled: boolean | undefined,
): TraceContext | undefined {
  if (traceId === undefined || spanId === undefined || traceId === noTrace || spanId === noSpan)
    return undefined;
  return Object.freeze({ traceId, spanId, sampled });
}

/** B3 also has trace IDs of 64 bits; everybody else shows them with zeros in front. */
function hex128(text: string | undefined): string | undefined {
  const id = bounded(text).toLowerCase();
  return /^(?:[0-9a-f]{16}|[0-9a-f]{32})$/.test(id) ? id.padStart(32, '0') : undefined;
}

function hex64(text: string | undefined): string | undefined {
  const id = bounded(text).toLowerCase();
  return /^[0-9a-f]{16}$/.test(id) ? id : undefined;
}

function bounded(value: string | undefined): string {
  return value === undefined || value.length > 512 ? '' : value;
}
