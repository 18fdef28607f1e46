import type { Config } from '../config/config.ts';
import type { SpiffeTrust } from '../http/server-trust.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { type SnapshotReader, usableDefaultSvid } from '../trust/snapshot.ts';
import { currentCredentials } from '../trust/svid-credentials.ts';

/** Servers with one of `spiffeIds`, to which our default X509-SVID is shown; undefined without any. */
export function createServerTrust(
  { sds }: Pick<Config, 'sds'>,
  spiffeIds: readonly SpiffeId[],
  { snapshots, now }: { snapshots: Pick<SnapshotReader, 'current'>; now: () => number },
): SpiffeTrust | undefined {
  if (spiffeIds.length === 0) return undefined;
  return {
    kind: 'spiffe',
    spiffeIds,
    bundles: () => snapshots.current().bundles,
    credentials: currentCredentials(snapshots, (snapshot) =>
      usableDefaultSvid(snapshot, sds.defaultSvidHint, now()),
    ),
    now,
  };
}
