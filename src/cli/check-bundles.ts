import type { ConfiguredEngine } from '../app/policy-engine.ts';
import type { BundleConfig } from '../config/bundle-section.ts';
import type { Config } from '../config/config.ts';
import { readBearerFile } from '../policy/bundle/bearer-file.ts';
import { BundleError } from '../policy/bundle/bundle-source.ts';
import type { BundleServiceMeter } from '../policy/bundle/http-bundle-source.ts';
import { readVerificationKey, VerificationKeyError } from '../policy/bundle/verification-key.ts';
import type { OpaPushMeter } from '../policy/opa/opa-push.ts';
import type { PolicyMeter } from '../policy/wasm/opa-wasm.ts';
import { ConfigError, type ConfigProblem, messageOf } from '../runtime/errors.ts';

type WasmEngine = Extract<ConfiguredEngine, { kind: 'wasm' }>['engine'];

export const silentPolicyMeter: PolicyMeter & BundleServiceMeter & OpaPushMeter = Object.freeze({
  pushed() {},
  pushLost() {},
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

/** What can be said without asking a service: the keys and tokens that bundles need must be there. */
export async function checkBundleFiles({ policy }: Config): Promise<readonly ConfigProblem[]> {
  const problems: ConfigProblem[] = [];
  const attempt = async (path: string, work: () => Promise<unknown>): Promise<void> => {
    await work().catch((error: unknown) => problems.push({ path, message: messageOf(error) }));
  };
  for (const { at, from, verificationKey } of policy.bundles) {
    const bearerFile = from.kind === 'service' ? from.bearerFile : undefined;
    if (verificationKey !== undefined)
      await attempt(`${at}.verification_key`, () => readVerificationKey(verificationKey));
    if (bearerFile !== undefined) await attempt(`${at}.auth.bearer_file`, () => readBearerFile(bearerFile));
  }
  return problems;
}

/** Takes the bundles into force; rejects with ConfigError. */
export async function loadBundles(engine: WasmEngine, config: Config, signal: AbortSignal): Promise<void> {
  try {
    await engine.load(signal);
  } catch (error) {
    throw new ConfigError([problemOf(config, error)]);
  }
}

/** At the key that is to be mended. */
function problemOf({ policy }: Config, error: unknown): ConfigProblem {
  const message = messageOf(error);
  const bundle =
    error instanceof BundleError ? policy.bundles.find(({ name }) => name === error.bundle) : undefined;
  if (bundle === undefined) return { path: 'policy.bundle', message };
  const ofKey = error instanceof BundleError && error.cause instanceof VerificationKeyError;
  return { path: ofKey ? `${bundle.at}.verification_key` : placeOf(bundle), message };
}

/** The key path of what the bundles come from. */
export function placeOfBundles({ policy }: Config): string {
  const [bundle, ...others] = policy.bundles;
  return bundle === undefined || others.length > 0 ? 'policy.bundle' : placeOf(bundle);
}

function placeOf({ at, from }: BundleConfig): string {
  return `${at}.${from.kind === 'file' ? 'file' : 'url'}`;
}
