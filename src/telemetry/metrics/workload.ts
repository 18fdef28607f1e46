import type { Instruments } from '../instruments.ts';

const answerBuckets = [0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30];

export function workloadMetrics({ counter, histogram }: Instruments) {
  const updates = counter('workload_updates_total', 'Good messages from the Workload API.', ['rpc']);
  const failures = counter(
    'workload_failures_total',
    'Calls and messages of the Workload API that came to nothing.',
    ['rpc', 'reason'],
  );
  const answers = histogram(
    'workload_answer_seconds',
    'Time from a call to the Workload API to its first answer.',
    answerBuckets,
    ['rpc'],
  );
  const devIssued = counter('dev_svids_issued_total', 'SVIDs that the embedded CA issued.', ['kind']);
  return Object.freeze({
    devIssued: (kind: string, count: number): void => devIssued.inc({ kind }, count),
    updated: (rpc: string): void => updates.inc({ rpc }),
    failed: (rpc: string, reason: string): void => failures.inc({ rpc, reason }),
    answered: (rpc: string, seconds: number): void => answers.observe({ rpc }, seconds),
  });
}
