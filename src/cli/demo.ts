import type { Clock } from '../app/clock.ts';
import { runDemo } from '../stack/demo.ts';
import { pathDirectories } from '../stack/executables.ts';
import { type CliOptions, type ExitCode, printLine } from './io.ts';

/** `demo`: 0 only when every line that it told is true. */
export async function demo(
  io: CliOptions,
  clock: Clock,
  flags: Readonly<{ keep: boolean }>,
): Promise<ExitCode> {
  const { sleep, now, random } = clock;
  const options = {
    program: io.program,
    searchPath: pathDirectories(io.env['PATH']),
    keep: flags.keep,
    tell: (line: string) => printLine(io.stdout, line),
    sleep,
    now,
    random,
  };
  return (await runDemo(options, io.signal)) ? 0 : 1;
}
