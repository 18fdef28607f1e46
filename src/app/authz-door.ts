import type { Config } from '../config/config.ts';
import { createMtlsDoor, type MtlsDoor } from '../http/mtls-door.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import { type SnapshotReader, usableDefaultSvid } from '../trust/snapshot.ts';
import { svidCredentials } from '../trust/svid-credentials.ts';

/** mTLS of `ext_authz.listen` as configured, with our default SVID; undefined without `ext_authz.tls`. */
export function createAuthzDoor(
  { extAuthz, sds }: Config,
  deps: { snapshots: SnapshotReader; now: () => number; log: Logger },
): Readonly<{ door: MtlsDoor; tasks: readonly Task[] }> | undefined {
  const { snapshots, now, log } = deps;
  if (extAuthz.tls === undefined) return undefined;
  const door = createMtlsDoor({
    credentials: svidCredentials(snapshots, (snapshot) =>
      usableDefaultSvid(snapshot, sds.defaultSvidHint, now()),
    ),
    clientIds: extAuthz.tls.clientSpiffeIds,
    trust: () => snapshots.current(),
    now,
    log,
  });
  return {
    door,
    tasks: [
      (signal) => door.run(signal),
      async (signal) => {
        for await (const _ of snapshots.changes(signal)) door.recheck();
      },
    ],
  };
}
