import type { Instruments } from '../instruments.ts';

export function outputMetrics({ counter }: Instruments) {
  const sets = counter('output_sets_total', 'Sets of files, and what became of them.', ['output', 'outcome']);
  const signals = counter('output_signals_total', 'Reload signals after a new set of files.', [
    'output',
    'outcome',
  ]);
  /** The meter of one entry of `outputs`. */
  return (index: number) => {
    const output = String(index);
    return Object.freeze({
      set: (outcome: string): void => sets.inc({ output, outcome }),
      signalled: (outcome: string): void => signals.inc({ output, outcome }),
    });
  };
}
