import type { BundleConfig } from '../config/bundle-section.ts';
import type { Config } from '../config/config.ts';
import type { BundleSource } from '../policy/bundle/bundle-source.ts';
import { createFileBundleSource } from '../policy/bundle/file-bundle-source.ts';
import {
  type BundleServiceMeter,
  type BundleServiceState,
  createHttpBundleSource,
  type HttpBundleSource,
} from '../policy/bundle/http-bundle-source.ts';
import type { Logger } from '../runtime/log.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import type { Clock } from './clock.ts';
import { createServerTrust } from './server-trust.ts';

export type BundleSourceDeps = Readonly<{
  snapshots: Pick<SnapshotReader, 'current' | 'changes'>;
  /** For a command that takes one version and ends: it waits for nothing else, and what is kept on disk is not its business. */
  once?: Readonly<{ timeoutMs: number }> | undefined;
  clock: Clock;
  log: Logger;
  meter: BundleServiceMeter;
}>;

/** Where the bundles come from as configured, in their order. */
export function createBundleSources(
  config: Config,
  deps: BundleSourceDeps,
): readonly (BundleSource | HttpBundleSource)[] {
  return config.policy.bundles.map((bundle) => createBundleSource(config, bundle, deps));
}

function createBundleSource(
  config: Config,
  { name, from, verificationKey }: BundleConfig,
  { snapshots, once, clock, log, meter }: BundleSourceDeps,
): BundleSource | HttpBundleSource {
  if (from.kind === 'file') {
    return createFileBundleSource({ name, file: from.file, verificationKey, sleep: clock.sleep });
  }
  const { url, polling, bearerFile, spiffeIds, persistDir } = from;
  const trust = createServerTrust(config, spiffeIds, { snapshots, now: clock.now });
  /** The service lets nobody in without an X509-SVID. */
  const ready = async (signal: AbortSignal): Promise<void> => {
    if (trust === undefined) return;
    for await (const _ of snapshots.changes(signal)) if (trust.credentials?.() !== undefined) return;
  };
  return createHttpBundleSource({
    name,
    url,
    polling,
    trust: trust ?? { kind: 'web' },
    ready: once === undefined ? ready : undefined,
    timeoutMs: once?.timeoutMs,
    bearerFile,
    verificationKey,
    persistDir: once === undefined ? persistDir : undefined,
    ...clock,
    log,
    meter,
  });
}

/** How asking a service for the bundle goes; undefined for a file. */
export function serviceOf(
  source: BundleSource | HttpBundleSource | undefined,
): (BundleServiceState & Readonly<{ location: string }>) | undefined {
  return source !== undefined && 'state' in source
    ? { location: source.location, ...source.state() }
    : undefined;
}
