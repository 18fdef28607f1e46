import { checkFederationFiles } from '../app/federation.ts';
import type { LoadedConfig } from '../config/load.ts';
import { ConfigError } from '../runtime/errors.ts';
import { type ConfigFlags, readConfig } from './config-file.ts';
import type { CliOptions, ExitCode } from './io.ts';
import { readVersion } from './version.ts';

/** `run`: the sidecar, until the signal fires. */
export async function run(
  io: CliOptions,
  flags: ConfigFlags & Readonly<{ config: string }>,
): Promise<ExitCode> {
  const read = async (): Promise<LoadedConfig> => {
    const checked = await readConfig(flags.config, flags, io.env);
    const problems = await checkFederationFiles(checked.config);
    if (problems.length > 0) throw new ConfigError(problems);
    return checked;
  };
  const { stdout, stderr, nodeVersion, signal, hangups, kill } = io;
  const configSource = { path: flags.config, read, requests: hangups };
  const loaded = await read();
  await io.runApp(
    { loaded, configSource, stdout, stderr, version: await readVersion(), nodeVersion, kill },
    signal,
  );
  return 0;
}
