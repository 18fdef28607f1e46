import type { Config } from '../config/config.ts';
import type { Sleep } from '../runtime/abort.ts';
import { type AppError, toAppError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import { type TrustSnapshot, usableSvids } from '../trust/snapshot.ts';
import type { TrustStore, TrustUpdate } from '../trust/store.ts';
import { createDevSource, type DevMeter } from '../workload/dev.ts';
import { createFilesSource } from '../workload/files.ts';
import type { IdentitySource, WatchEvent } from '../workload/identity-source.ts';
import type { WorkloadMeter } from '../workload/meter.ts';
import { createWorkloadApiSource } from '../workload/workload-api.ts';

export type ConfiguredSource = Readonly<{
  source: IdentitySource;
  /** What the source itself has to do while it is in use. */
  tasks: readonly Task[];
}>;

/** The identity source that the configuration names. */
export async function createConfiguredSource(
  config: Config,
  deps: {
    now: () => number;
    sleep: Sleep;
    random: () => number;
    log: Logger;
    meter: WorkloadMeter & DevMeter;
  },
): Promise<ConfiguredSource> {
  const { dev, files, workloadApi } = config.identity;
  if (files !== undefined) {
    const source = createFilesSource({ files, ...deps });
    return { source, tasks: [(signal) => source.run(signal)] };
  }
  if (dev === undefined) {
    return { source: createWorkloadApiSource({ address: workloadApi.address, ...deps }), tasks: [] };
  }
  const { trustDomain, spiffeIds, svidTtlMs, jwtSvidTtlMs } = dev;
  const source = await createDevSource({ trustDomain, spiffeIds, svidTtlMs, jwtSvidTtlMs, ...deps });
  return { source, tasks: [(signal) => source.run(signal)] };
}

/** What joins a source to the store. */
export type Feed = Readonly<{
  tasks: readonly Task[];
  /** The last X.509 event's error: the last good value has to do for now. Undefined when all is well. */
  problem(): string | undefined;
  /** Why no traffic should come here now: no SVID that is valid, or SVIDs of a trust domain that was not expected. */
  unready(): string | undefined;
}>;

/**
 * Feeds the store from the source until the signal fires. An update that the store refuses, and a failure of the source,
 * leave the last good snapshot; a revocation empties it unless the configuration says `keep`.
 */
export function createFeed(options: {
  source: IdentitySource;
  store: TrustStore;
  onPermissionDenied: 'drop' | 'keep';
  now: () => number;
  log: Logger;
  /** Told after each X.509 event: what is wrong, or undefined. */
  onProblem?: (problem: AppError | undefined) => void;
}): Feed {
  const { source, store, onPermissionDenied, now, log, onProblem } = options;
  let x509: AppError | undefined;

  function apply(update: TrustUpdate): AppError | undefined {
    try {
      store.apply(update);
      return undefined;
    } catch (error) {
      const { code, message } = toAppError(error);
      log.error({ kind: update.kind, code, error: message }, 'update refused; last good trust stays');
      return toAppError(error);
    }
  }

  function take<T>(
    event: WatchEvent<T>,
    update: (value: T) => TrustUpdate,
    revocation: TrustUpdate,
  ): AppError | undefined {
    if (event.kind === 'update') return apply(update(event.value));
    if (event.kind === 'revoked' && onPermissionDenied === 'drop') apply(revocation);
    return event.error;
  }

  return {
    tasks: [
      async (signal) => {
        for await (const event of source.watchX509(signal)) {
          x509 = take(event, (context) => ({ kind: 'x509', context }), { kind: 'x509_revoked' });
          onProblem?.(x509);
        }
      },
      async (signal) => {
        for await (const event of source.watchJwtBundles(signal)) {
          take(event, (bundles) => ({ kind: 'jwt_bundles', bundles }), { kind: 'jwt_bundles_revoked' });
        }
      },
    ],
    problem: () => x509?.message,
    unready() {
      // The store's word for SVIDs of another trust domain than the configuration asserts.
      if (x509?.code === 'conflict') return x509.message;
      return missingIdentity(store.current(), x509?.message, now());
    },
  };
}

function missingIdentity(
  snapshot: TrustSnapshot,
  problem: string | undefined,
  now: number,
): string | undefined {
  if (usableSvids(snapshot, now).length > 0) return undefined;
  const held = snapshot.svids.length > 0 ? 'every X.509-SVID held has expired' : 'no identity is held';
  return problem === undefined ? held : `${held}: ${problem}`;
}
