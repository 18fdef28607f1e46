import { type ConfigFlags, readConfig } from './config-file.ts';
import type { CliOptions, ExitCode } from './io.ts';
import { readVersion } from './version.ts';

/** `run`: the sidecar, until the signal fires. */
export async function run(
  io: CliOptions,
  flags: ConfigFlags & Readonly<{ config: string }>,
): Promise<ExitCode> {
  const read = () => readConfig(flags.config, flags, io.env);
  const { stdout, stderr, nodeVersion, signal, hangups, kill } = io;
  const configSource = { path: flags.config, read, requests: hangups };
  const loaded = await read();
  await io.runApp(
    { loaded, configSource, stdout, stderr, version: await readVersion(), nodeVersion, kill },
    signal,
  );
  return 0;
}
