import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Sleep } from '../runtime/abort.ts';
import { UnavailableError } from '../runtime/errors.ts';

/** A program to run beside us. */
export type ChildSpec = Readonly<{
  /** What it is called in messages and log prefixes. */
  name: string;
  command: string;
  args: readonly string[];
  /** The whole environment: a child sees nothing of ours that is not named here. */
  env: Readonly<Record<string, string>>;
  cwd?: string;
  /** Each line the child prints, as it comes. */
  onLine?: (line: string) => void;
}>;

export type ChildExit = Readonly<{ code: number | undefined; signal: NodeJS.Signals | undefined }>;

/** A running child process. */
export interface Child {
  readonly name: string;
  readonly pid: number;
  /** Resolves when the process has ended and its output was read to the end; never rejects. */
  readonly exit: Promise<ChildExit>;
  /** Undefined while it runs. */
  exited(): ChildExit | undefined;
  /** The last lines it printed, oldest first; at most 2000. */
  recentLines(): readonly string[];
  /** How many lines it has printed so far: a mark for `linesSince`. */
  lineCount(): number;
  /** The lines from `mark` on that are still held. */
  linesSince(mark: number): readonly string[];
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL after `graceMs`; resolves when it has ended. */
  stop(graceMs: number, sleep: Sleep): Promise<ChildExit>;
}

const MAX_LINES = 2000;
const MAX_LINE_LENGTH = 16_384;

/**
 * Starts a child process. It stays in our process group, so that what a terminal tells us (Ctrl-C, a hang-up) reaches it
 * too, even when we are past stopping it. Rejects with UnavailableError when the program cannot be started.
 */
export async function startChild(spec: ChildSpec): Promise<Child> {
  const { name } = spec;
  const child = spawn(spec.command, spec.args, {
    env: { ...spec.env },
    cwd: spec.cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  });

  const lines: string[] = [];
  let count = 0;
  const onLine = (text: string): void => {
    const line = text.slice(0, MAX_LINE_LENGTH);
    count += 1;
    lines.push(line);
    if (lines.length > MAX_LINES) lines.shift();
    spec.onLine?.(line);
  };
  for (const stream of [child.stdout, child.stderr]) readLines(stream, onLine);

  let ended: ChildExit | undefined;
  const exit = new Promise<ChildExit>((resolve) => {
    child.once('close', (code, signal) => {
      ended = Object.freeze({ code: code ?? undefined, signal: signal ?? undefined });
      resolve(ended);
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (cause) => {
      reject(new UnavailableError(`${name} cannot be started: ${cause.message}`, { cause }));
    });
  });
  const { pid } = child;
  if (pid === undefined) throw new UnavailableError(`${name} was started without a process id`);

  const kill = (signal: NodeJS.Signals): void => {
    if (ended === undefined) child.kill(signal);
  };
  return {
    name,
    pid,
    exit,
    exited: () => ended,
    recentLines: () => [...lines],
    lineCount: () => count,
    linesSince: (mark) => lines.slice(Math.max(0, lines.length - (count - mark))),
    kill,
    async stop(graceMs, sleep) {
      kill('SIGTERM');
      const patience = new AbortController();
      const overdue = sleep(graceMs, patience.signal).then(
        () => kill('SIGKILL'),
        () => {},
      );
      const result = await exit;
      patience.abort();
      await overdue;
      return result;
    },
  };
}

function readLines(stream: Readable, onLine: (line: string) => void): void {
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', onLine);
}

/** How a child ended, in words: `exit code 1`, `signal SIGKILL`. */
export function describeExit(exit: ChildExit): string {
  return exit.signal === undefined ? `exit code ${exit.code ?? 'unknown'}` : `signal ${exit.signal}`;
}
