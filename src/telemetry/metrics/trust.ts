import type { Instruments } from '../instruments.ts';

export function trustMetrics({ counter }: Instruments) {
  const updates = counter('trust_updates_total', 'Updates of SVIDs and bundles, and what became of them.', [
    'kind',
    'outcome',
  ]);
  const rotations = counter('svid_rotations_total', 'X.509-SVIDs that replaced another one of the same ID.', [
    'spiffe_id',
  ]);
  return Object.freeze({
    applied: (kind: string, outcome: string): void => updates.inc({ kind, outcome }),
    rotated: (spiffeId: string): void => rotations.inc({ spiffe_id: spiffeId }),
  });
}
