import { type ConfigFlags, readConfig } from './config-file.ts';
import type { CliOptions, ExitCode } from './io.ts';
import { readVersion } from './version.ts';

/** `run`: the sidecar, until the signal fires. */
export async function run(
  io: CliOptions,
  flags: ConfigFlags & Readonly<{ config: string }>,
): Promise<ExitCode> {
  const { config, warnings } = await readConfig(flags.config, flags, io.env);
  const { stdout, stderr, nodeVersion, signal } = io;
  await io.runApp({ config, warnings, stdout, stderr, version: await readVersion(), nodeVersion }, signal);
  return 0;
}
