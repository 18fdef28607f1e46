import type { Clock } from '../app/clock.ts';
import { createConfiguredSource, createFeed } from '../app/identity.ts';
import type { Config } from '../config/config.ts';
import { withDeadline } from '../runtime/abort.ts';
import { TimeoutError, UnavailableError } from '../runtime/errors.ts';
import { silentLogger } from '../runtime/log.ts';
import { runTasks } from '../runtime/tasks.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import { createTrustStore, type TrustMeter } from '../trust/store.ts';
import type { DevMeter } from '../workload/dev.ts';
import type { WorkloadMeter } from '../workload/meter.ts';

const silentTrustMeter: TrustMeter = Object.freeze({ applied() {}, rotated() {} });

export const silentWorkloadMeter: WorkloadMeter & DevMeter = Object.freeze({
  updated() {},
  failed() {},
  answered() {},
  devIssued() {},
});

/**
 * The first snapshot with an identity that the configured source gives, within `timeoutMs`; else rejects with the
 * source's last word. An SVID of another trust domain than the config asserts is none. Where JWT-SVIDs of peers are to be
 * verified, it waits as long for their bundles, but does without them in the end.
 */
export async function firstIdentity(
  config: Config,
  clock: Clock,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<TrustSnapshot> {
  const { now } = clock;
  const log = silentLogger;
  const store = createTrustStore({
    expectedTrustDomain: config.trustDomain,
    now,
    log,
    meter: silentTrustMeter,
  });
  const { source, tasks } = await createConfiguredSource(config, {
    ...clock,
    log,
    meter: silentWorkloadMeter,
  });
  const feed = createFeed({ source, store, onPermissionDenied: 'drop', now, log });
  const needsJwt = config.extAuthz.enabled && config.extAuthz.peer.jwtSvid.audiences.length > 0;
  let found: TrustSnapshot | undefined;
  const stop = new AbortController();
  const running = runTasks(AbortSignal.any([signal, stop.signal]), [...tasks, ...feed.tasks]);
  try {
    return await withDeadline(timeoutMs, signal, async (bounded) => {
      for await (const snapshot of store.changes(bounded)) {
        if (snapshot.trustDomain === undefined) continue;
        found = snapshot;
        if (!needsJwt || snapshot.jwtBundles.size > 0) return snapshot;
      }
      throw new UnavailableError('the wait for an identity was ended');
    });
  } catch (error) {
    if (found !== undefined && error instanceof TimeoutError) return found;
    const problem = feed.unready();
    if (!(error instanceof TimeoutError) || problem === undefined) throw error;
    throw new UnavailableError(`${problem} (waited ${timeoutMs} ms)`, { cause: error });
  } finally {
    stop.abort();
    await running;
  }
}
