import type { Clock } from '../app/clock.ts';
import { checkFederationFiles } from '../app/federation.ts';
import { checkPushFiles } from '../app/opa-engine.ts';
import { type ConfiguredEngine, createConfiguredEngine } from '../app/policy-engine.ts';
import type { FilesIdentityConfig } from '../config/identity-section.ts';
import { describeConfig } from '../config/load.ts';
import type { WasmEngine } from '../policy/wasm/opa-wasm.ts';
import { ConfigError, type ConfigProblem, messageOf } from '../runtime/errors.ts';
import { createLatest, type Latest } from '../runtime/latest.ts';
import { silentLogger } from '../runtime/log.ts';
import type { X509BundleSet } from '../spiffe/bundle.ts';
import { emptySnapshot, type TrustSnapshot } from '../trust/snapshot.ts';
import { readIdentityFiles } from '../workload/files.ts';
import {
  checkBundleFiles,
  checkBundles,
  needsBundleService,
  placeOfBundles,
  silentPolicyMeter,
} from './check-bundles.ts';
import { type CheckedConfig, type ConfigFlags, readConfig } from './config-file.ts';
import { firstIdentity } from './first-identity.ts';
import { type CliOptions, type ExitCode, printLine } from './io.ts';
import { describeBundle, federationAttempts } from './try-federation.ts';

export type ValidateFlags = ConfigFlags & Readonly<{ config: string; online: boolean; timeoutMs: number }>;

/**
 * `validate`: reads the config and the files that it names, then prints the effective config. With `online` it also
 * tries what the program will talk to; that failing is exit code 1, since the config itself is fine.
 */
export async function validate(io: CliOptions, clock: Clock, flags: ValidateFlags): Promise<ExitCode> {
  const checked = await readConfig(flags.config, flags, io.env);
  const { config, options, warnings } = checked;
  for (const warning of warnings) printLine(io.stderr, `warning: ${warning}`);
  const { extAuthz } = config;
  // How fast OPA answers is not the question here, whether it does is.
  const patient = { ...config, policy: { ...config.policy, timeoutMs: flags.timeoutMs } };
  const identity = createLatest(emptySnapshot);
  const deps = {
    snapshots: identity,
    once: { timeoutMs: flags.timeoutMs },
    clock,
    log: silentLogger,
    meter: silentPolicyMeter,
  };
  const engine = extAuthz.enabled ? createConfiguredEngine(patient, deps) : undefined;
  try {
    const problems = [
      ...(await checkFiles(io, config.identity.files, clock.now())),
      ...(engine?.kind === 'wasm' ? await checkPolicy(engine.engine, checked, io.signal) : []),
      ...(await checkPushFiles(config)),
      ...(await checkFederationFiles(config)),
    ];
    if (problems.length > 0) throw new ConfigError(problems);
    printLine(io.stdout, describeConfig(options));
    return flags.online ? await tryPeers(io, clock, checked, { engine, identity }, flags.timeoutMs) : 0;
  } finally {
    if (engine?.kind === 'wasm') engine.engine.close();
  }
}

/** Services are asked only with `online`. */
async function checkPolicy(
  engine: WasmEngine,
  { config, queries }: CheckedConfig,
  signal: AbortSignal,
): Promise<readonly ConfigProblem[]> {
  return needsBundleService(config)
    ? checkBundleFiles(config)
    : checkBundles(engine, config, queries.paths, signal);
}

/** The identity files must hold an identity; what is odd but works is a warning. */
async function checkFiles(
  io: CliOptions,
  files: FilesIdentityConfig | undefined,
  now: number,
): Promise<readonly ConfigProblem[]> {
  if (files === undefined) return [];
  try {
    const { warnings } = await readIdentityFiles(files, now);
    for (const warning of warnings) printLine(io.stderr, `warning: ${warning}`);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

async function tryPeers(
  io: CliOptions,
  clock: Clock,
  { config, queries }: CheckedConfig,
  { engine, identity }: { engine: ConfiguredEngine | undefined; identity: Latest<TrustSnapshot> },
  timeoutMs: number,
): Promise<ExitCode> {
  const { signal } = io;
  const held = (): X509BundleSet => identity.current().bundles;
  const partners = await federationAttempts(config, { held, now: clock.now, signal });
  const attempts: readonly (readonly [string, () => Promise<string>])[] = [
    [
      'identity',
      async () => {
        const found = await firstIdentity(config, clock, timeoutMs, io.signal);
        identity.set(found);
        return found.svids.map(({ spiffeId }) => spiffeId).join(', ');
      },
    ],
    ...partners.map(
      ({ trustDomain, attempt }) =>
        [
          `federation with ${trustDomain}`,
          async () => {
            const document = await attempt();
            const { bundles, ...rest } = identity.current();
            identity.set({ ...rest, bundles: new Map([[trustDomain, document.x509], ...bundles]) });
            return describeBundle(document);
          },
        ] as const,
    ),
    // The servers of these may be of a partner.
    ...(engine?.kind === 'opa'
      ? [
          [
            'policy',
            async () => {
              await engine.engine.probe(io.signal);
              return `OPA at ${config.policy.opa.url} is healthy`;
            },
          ] as const,
        ]
      : []),
    ...(engine?.kind === 'wasm' && needsBundleService(config)
      ? [
          [
            placeOfBundles(config),
            async () => {
              const [problem] = await checkBundles(engine.engine, config, queries.paths, io.signal);
              if (problem !== undefined) throw new ConfigError([{ ...problem, path: '' }]);
              const bundles = engine.engine.bundles();
              const named = bundles.map(({ name, revision }) => `${name} ${revision}`).join(', ');
              return `revision ${bundles.length === 1 ? bundles[0]?.revision : named} would be activated`;
            },
          ] as const,
        ]
      : []),
  ];
  let code: ExitCode = 0;
  for (const [name, attempt] of attempts) {
    try {
      printLine(io.stderr, `${name}: ${await attempt()}`);
    } catch (error) {
      code = 1;
      printLine(io.stderr, `${name}: failed: ${messageOf(error)}`);
    }
  }
  return code;
}
