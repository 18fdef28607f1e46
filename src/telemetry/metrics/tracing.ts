import type { Instruments } from '../instruments.ts';

export function tracingMetrics({ counter }: Instruments) {
  const exported = counter('spans_exported_total', 'Spans that the collector took.');
  const dropped = counter('spans_dropped_total', 'Spans that were not sent, or not taken, by reason.', [
    'reason',
  ]);
  return Object.freeze({
    spansExported: (count: number): void => exported.inc(count),
    spansDropped: (reason: string, count: number): void => dropped.inc({ reason }, count),
  });
}
