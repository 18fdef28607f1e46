import type { Instruments } from '../instruments.ts';

export function configMetrics({ counter, gauge }: Instruments) {
  const reads = counter(
    'config_reads_total',
    'Times that the configuration was read again, and what came of it.',
    ['outcome'],
  );
  const denied = gauge('denied_identities', 'Patterns of denied identities in force.');
  return Object.freeze({
    configRead: (outcome: string): void => reads.inc({ outcome }),
    deniedIdentities: (count: number): void => denied.set(count),
  });
}
