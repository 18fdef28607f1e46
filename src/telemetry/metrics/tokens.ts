import type { Instruments } from '../instruments.ts';

export function tokenMetrics({ counter }: Instruments) {
  const requests = counter(
    'jwt_svid_requests_total',
    'JWT-SVIDs asked of the cache: answered from it (hit), after a fetch (miss), or not at all (failed).',
    ['result'],
  );
  const issued = counter(
    'jwt_svids_issued_total',
    'JWT-SVIDs that the identity source issued: the first for its identity and audience, or a renewal.',
    ['kind'],
  );
  const failures = counter('jwt_svid_failures_total', 'JWT-SVIDs that the identity source did not issue.', [
    'reason',
  ]);
  return Object.freeze({
    requested: (result: string): void => requests.inc({ result }),
    issued: (kind: string): void => issued.inc({ kind }),
    failed: (reason: string): void => failures.inc({ reason }),
  });
}
