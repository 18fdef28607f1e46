import type { ConfiguredEngine } from '../app/authorization.ts';
import type { Config } from '../config/config.ts';
import type { BundleServiceMeter } from '../policy/http-bundle-source.ts';
import type { PolicyMeter } from '../policy/opa-wasm.ts';
import { ConfigError, type ConfigProblem, messageOf } from '../runtime/errors.ts';

type WasmEngine = Extract<ConfiguredEngine, { kind: 'wasm' }>['engine'];

export const silentPolicyMeter: PolicyMeter & BundleServiceMeter = Object.freeze({
  bundleLoaded() {},
  workerReplaced() {},
  bundleRequested() {},
  bundleAnswered() {},
});

/** Whether a service has to be asked for a bundle. */
export function needsBundleService({ policy }: Config): boolean {
  return policy.bundles.some(({ from }) => from.kind === 'service');
}

/** The bundles must load, and hold every decision in `paths`, which a Check can ask for. */
export async function checkBundles(
  engine: WasmEngine,
  config: Config,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<readonly ConfigProblem[]> {
  try {
    await loadBundles(engine, config, signal);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  const entrypoints = engine.entrypoints();
  return paths
    .filter((path) => !entrypoints.includes(path))
    .map((path): ConfigProblem => {
      const message = `has no entry point ${path}, which ext_authz asks for; it has ${entrypoints.join(', ')}`;
      return { path: placeOfBundles(config), message };
    });
}

/** Takes the bundles into force; rejects with ConfigError. */
export async function loadBundles(engine: WasmEngine, config: Config, signal: AbortSignal): Promise<void> {
  try {
    await engine.load(signal);
  } catch (error) {
    throw new ConfigError([{ path: placeOfBundles(config), message: messageOf(error) }]);
  }
}

/** The key path of what the bundles come from. */
export function placeOfBundles({ policy }: Config): string {
  const [bundle, ...others] = policy.bundles;
  if (bundle === undefined || others.length > 0) return 'policy.bundle';
  return `${bundle.at}.${bundle.from.kind === 'file' ? 'file' : 'url'}`;
}
