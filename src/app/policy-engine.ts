import type { PolicyState } from '../admin/status.ts';
import type { Config } from '../config/config.ts';
import type { OpaPushMeter } from '../policy/opa/opa-push.ts';
import { createWasmEngine, type PolicyMeter, type WasmEngine } from '../policy/wasm/opa-wasm.ts';
import { ConfigError } from '../runtime/errors.ts';
import { type BundleSourceDeps, createBundleSources, serviceOf } from './bundle-sources.ts';
import { type ConfiguredOpa, createConfiguredOpa } from './opa-engine.ts';

/** The engine that the configuration names; the tag lets callers reach what only one of them has. */
export type ConfiguredEngine =
  | ConfiguredOpa
  | Readonly<{ kind: 'wasm'; engine: WasmEngine; bundles: () => PolicyState['bundles'] }>;

/** The engine as configured; it decides nothing before it runs. */
export function createConfiguredEngine(
  config: Config,
  deps: BundleSourceDeps & Readonly<{ meter: PolicyMeter & OpaPushMeter }>,
): ConfiguredEngine {
  const { policy } = config;
  const { clock, log, meter } = deps;
  const { timeoutMs } = policy;
  if (policy.engine === 'opa') {
    return createConfiguredOpa(config, deps);
  }
  const sources = createBundleSources(config, deps);
  if (sources.length === 0) {
    throw new ConfigError([{ path: 'policy.bundle', message: 'is needed when policy.engine is wasm' }]);
  }
  const { sleep, random, monotonicNow, now } = clock;
  const engine = createWasmEngine({
    sources,
    timeoutMs,
    now: monotonicNow,
    epochNow: now,
    sleep,
    random,
    log,
    meter,
  });
  const bundles = () =>
    engine.bundles().map((bundle, index) => ({ ...bundle, service: serviceOf(sources[index]) }));
  return { kind: 'wasm', engine, bundles };
}
