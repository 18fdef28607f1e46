import type { Instruments } from '../instruments.ts';

export function policyMetrics({ counter, gauge }: Instruments) {
  const bundles = counter(
    'policy_bundles_total',
    'Versions of policy bundles that were taken into force or refused, by the name of the bundle.',
    ['bundle', 'outcome'],
  );
  const workers = counter('policy_workers_replaced_total', 'Policy workers that ended and were replaced.', [
    'cause',
  ]);
  const requests = counter(
    'policy_bundle_requests_total',
    'Requests to the service of a policy bundle: answered with a bundle (new), with nothing newer (unchanged), or not well (failed).',
    ['bundle', 'outcome'],
  );
  const answered = gauge(
    'policy_bundle_answered_timestamp_seconds',
    'When the service of this policy bundle last gave a good answer, in seconds since the epoch.',
    ['bundle'],
  );
  const pushes = counter('policy_pushes_total', 'Files pushed to OPA, and what became of them.', ['outcome']);
  const losses = counter(
    'policy_push_losses_total',
    'Times that OPA no longer had the files pushed to it.',
    [],
  );
  return Object.freeze({
    bundleRequested: (bundle: string, outcome: string): void => requests.inc({ bundle, outcome }),
    bundleAnswered: (bundle: string, at: number): void => answered.set({ bundle }, at / 1000),
    pushed: (outcome: string): void => pushes.inc({ outcome }),
    pushLost: (): void => losses.inc({}),
    bundleLoaded: (bundle: string, outcome: string): void => bundles.inc({ bundle, outcome }),
    workerReplaced: (cause: string): void => workers.inc({ cause }),
  });
}
