import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { callTraceOf, traceContextOf } from '../../../src/extauthz/trace-context.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';
const expected = { traceId, spanId, sampled: true };
const open = { traceId, spanId, sampled: undefined };
const unsampled = { traceId, spanId, sampled: false };
const short = { traceId: `0000000000000000${traceId.slice(16)}`, spanId, sampled: true };

const cases: readonly [string, Record<string, string>, object | undefined][] = [
  ['W3C', { traceparent: `00-${traceId}-${spanId}-01` }, expected],
  ['W3C of a later version with more fields', { traceparent: `cc-${traceId}-${spanId}-01-what` }, expected],
  [
    'W3C before B3',
    { traceparent: `00-${traceId}-${spanId}-01`, b3: `${'1'.repeat(32)}-${spanId}` },
    expected,
  ],
  ['B3 in one header', { b3: `${traceId}-${spanId}-1-05e3ac9a4f6e3b90` }, expected],
  ['B3 without sampling state', { b3: `${traceId}-${spanId}` }, open],
  ['B3 of 64 bits', { b3: `${traceId.slice(16)}-${spanId}-d` }, short],
  ['B3 in upper case', { b3: `${traceId.toUpperCase()}-${spanId}-1` }, expected],
  [
    'B3 in several headers',
    { 'x-b3-traceid': traceId, 'x-b3-spanid': spanId, 'x-b3-sampled': '0' },
    unsampled,
  ],
  ['B3 when traceparent is broken', { traceparent: 'rubbish', b3: `${traceId}-${spanId}-0` }, unsampled],
  ['W3C that is not sampled', { traceparent: `00-${traceId}-${spanId}-02` }, unsampled],
  ['W3C with other flags', { traceparent: `00-${traceId}-${spanId}-ff` }, expected],
  ['B3 in several headers, open', { 'x-b3-traceid': traceId, 'x-b3-spanid': spanId }, open],
  [
    'B3 in several headers, to be debugged',
    { 'x-b3-traceid': traceId, 'x-b3-spanid': spanId, 'x-b3-flags': '1', 'x-b3-sampled': '0' },
    expected,
  ],
  ['no header', {}, undefined],
  ['version 00 with more fields', { traceparent: `00-${traceId}-${spanId}-01-what` }, undefined],
  ['version ff', { traceparent: `ff-${traceId}-${spanId}-01` }, undefined],
  ['W3C in upper case', { traceparent: `00-${traceId.toUpperCase()}-${spanId}-01` }, undefined],
  ['W3C without trace', { traceparent: `00-${'0'.repeat(32)}-${spanId}-01` }, undefined],
  ['W3C without span', { traceparent: `00-${traceId}-${'0'.repeat(16)}-01` }, undefined],
  [
    'two traceparent headers',
    { traceparent: `00-${traceId}-${spanId}-01,00-${traceId}-${spanId}-01` },
    undefined,
  ],
  ['a sampling state alone', { b3: '0' }, undefined],
  ['B3 with a sampling state that is none', { b3: `${traceId}-${spanId}-x` }, undefined],
  ['B3 with a broken parent', { b3: `${traceId}-${spanId}-1-what` }, undefined],
  ['B3 with too many fields', { b3: `${traceId}-${spanId}-1-${spanId}-1` }, undefined],
  ['only a trace', { 'x-b3-traceid': traceId }, undefined],
  ['a trace ID of another length', { 'x-b3-traceid': traceId.slice(1), 'x-b3-spanid': spanId }, undefined],
];

for (const [name, headers, context] of cases) {
  test(`the trace of a request: ${name}`, () => assert.deepEqual(traceContextOf(headers), context));
}

test('whatever a client sends, only hexadecimal digits come out', () => {
  const field = fc.oneof(fc.constantFrom(traceId, spanId, '00', '1', 'd', ''), fc.string({ maxLength: 40 }));
  const header = fc.array(field, { maxLength: 6 }).map((fields) => fields.join('-'));
  const headers = fc.record(
    { traceparent: header, b3: header, 'x-b3-traceid': field, 'x-b3-spanid': field },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(headers, (given) => {
      const context = traceContextOf(given);
      if (context === undefined) return;
      assert.match(context.traceId, /^[0-9a-f]{32}$/);
      assert.match(context.spanId, /^[0-9a-f]{16}$/);
    }),
  );
});

test('the metadata of a call names a trace as headers do, by the first value of each key', () => {
  const of = (metadata: Record<string, readonly string[]>) => callTraceOf((key) => metadata[key] ?? []);
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  const spanId = '00f067aa0ba902b7';
  assert.deepEqual(of({ traceparent: [`00-${traceId}-${spanId}-01`, 'junk'] }), {
    traceId,
    spanId,
    sampled: true,
  });
  assert.deepEqual(of({ 'x-b3-traceid': [traceId], 'x-b3-spanid': [spanId], 'x-b3-sampled': ['0'] }), {
    traceId,
    spanId,
    sampled: false,
  });
  assert.equal(of({}), undefined);
  assert.equal(of({ traceparent: ['junk'] }), undefined);
});
