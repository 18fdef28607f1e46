import type { Instruments } from '../instruments.ts';

export function decisionLogMetrics({ counter }: Instruments) {
  const dropped = counter(
    'decisions_dropped_total',
    'Checks without a record in the decision log, or whose record never reached the service, by reason.',
    ['reason'],
  );
  const sent = counter('decisions_sent_total', 'Decision log records that the service took.');
  const shortened = counter(
    'decisions_shortened_total',
    'Decision log records sent without input and result, because they were too large.',
  );
  const withheld = counter(
    'decisions_withheld_total',
    'Decision log records without input and result, because system.log.mask or drop could not be evaluated.',
  );
  const failures = counter(
    'decision_uploads_failed_total',
    'Batches that the decision log service did not take.',
  );
  return Object.freeze({
    decisionDropped: (reason: string): void => dropped.inc({ reason }),
    decisionsLost: (reason: string, count: number): void => dropped.inc({ reason }, count),
    decisionsSent: (count: number): void => sent.inc(count),
    decisionWithheld: (): void => withheld.inc(),
    decisionShortened: (): void => shortened.inc(),
    uploadFailed: (): void => failures.inc(),
  });
}
