import { readFile } from 'node:fs/promises';
import { compileConfiguredQueries } from '../app/checker.ts';
import { readDenied } from '../app/identity-rules.ts';
import { checkJwtMatches } from '../app/jwt-authorization.ts';
import { readProtoTypes } from '../app/proto-types.ts';
import type { Config } from '../config/config.ts';
import type { Environment } from '../config/environment.ts';
import { type LoadedConfig, loadConfig } from '../config/load.ts';
import type { QueryMap } from '../policy/query-map.ts';
import { ConfigError, type ConfigProblem, errnoOf, messageOf } from '../runtime/errors.ts';
import { parseEndpointAddress } from '../workload/endpoint.ts';

/** Flags of every command that reads a config, by the key that each sets. */
export const configFlags = Object.freeze({
  listen: 'listen',
  'admin-listen': 'admin.listen',
  'workload-api': 'identity.workload_api.address',
  'trust-domain': 'trust_domain',
  'log-level': 'log.level',
} as const);

export type ConfigFlags = Readonly<Partial<Record<keyof typeof configFlags, string | undefined>>>;

export type CheckedConfig = LoadedConfig & Readonly<{ queries: QueryMap }>;

/**
 * Reads the config file and everything in it that can be judged without looking further. Throws ConfigError with all
 * problems at once, those that only other rooms can see included.
 */
export async function readConfig(
  path: string | undefined,
  flags: ConfigFlags,
  env: Environment,
): Promise<CheckedConfig> {
  const text = path === undefined ? undefined : await readText(path);
  const loaded = loadConfig({ text, path, env, flags: flagValues(flags), check: problemsOf });
  await readDenied(loaded.config);
  readProtoTypes(loaded.config);
  return Object.freeze({ ...loaded, queries: compileConfiguredQueries(loaded.config) });
}

/** What the rooms that the config room does not know find in a configuration. */
function problemsOf(config: Config): readonly ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  attempt(problems, '', () => compileConfiguredQueries(config));
  attempt(problems, '', () => checkJwtMatches(config));
  if (config.identity.source === 'workload_api') {
    attempt(problems, 'identity.workload_api.address', () =>
      parseEndpointAddress(config.identity.workloadApi.address),
    );
  }
  return problems;
}

/** The values that flags give, by key path. */
function flagValues(flags: ConfigFlags): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(configFlags).flatMap(([flag, key]) => {
      const value = flags[flag as keyof ConfigFlags];
      return value === undefined ? [] : [[key, value]];
    }),
  );
}

/** A file that the command line names; one that cannot be read is a mistake of usage. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file',
      EACCES: 'permission denied',
      EISDIR: 'it is a directory',
    };
    const reason = reasons[errnoOf(error) ?? ''] ?? messageOf(error);
    throw new ConfigError([{ path: '', message: `cannot read ${path}: ${reason}` }]);
  }
}

function attempt(problems: ConfigProblem[], path: string, work: () => unknown): void {
  try {
    work();
  } catch (error) {
    problems.push(...(error instanceof ConfigError ? error.problems : [{ path, message: messageOf(error) }]));
  }
}
