import type { Writable } from 'node:stream';
import type { AppOptions } from '../app/app.ts';
import type { Environment } from '../config/environment.ts';

/** What the commands are given of the process that they run in; they touch nothing else of it. */
export type CliOptions = Readonly<{
  /** Without the executable and the script. */
  argv: readonly string[];
  env: Environment;
  stdout: Writable;
  stderr: Writable;
  /** Fires when the program shall end. */
  signal: AbortSignal;
  /** How this program is started: executable and first arguments, for the commands that start it again. */
  program: readonly [string, ...string[]];
  nodeVersion: string;
  /** Yields once at first, then at each SIGHUP. */
  hangups(signal: AbortSignal): AsyncIterable<unknown>;
  /** Signals another process, as kill(2) does. */
  kill: AppOptions['kill'];
  runApp(options: AppOptions, signal: AbortSignal): Promise<void>;
}>;

/** 0 fine, 1 runtime failure, 64 usage or config. */
export type ExitCode = 0 | 1 | 64;

/** Writes one line, or several, to the stream. */
export function printLine(stream: Writable, text: string): void {
  stream.write(text.endsWith('\n') ? text : `${text}\n`);
}

/** Writes a value as indented JSON. */
export function printJson(stream: Writable, value: unknown): void {
  printLine(stream, JSON.stringify(value, undefined, 2));
}
