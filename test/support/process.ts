import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import type { TestContext } from 'node:test';
import { sleep } from '../../src/runtime/abort.ts';
import { type Child, type ChildExit, type ChildSpec, startChild } from '../../src/stack/child.ts';
import { poll } from '../../src/stack/poll.ts';

export type TestProcessSpec = Omit<ChildSpec, 'env' | 'onLine'> & { env?: Readonly<Record<string, string>> };

/** A child process of a test; it has ended when the test has. */
export interface TestProcess extends Omit<Child, 'stop'> {
  /** The first line that matches, of those printed since `mark` (default: all) or still to come. */
  waitForLine(pattern: RegExp, options?: { since?: number; timeoutMs?: number }): Promise<string>;
  /** SIGTERM, and SIGKILL when that does nothing for 10 s. */
  stop(): Promise<ChildExit>;
  /** SIGKILL, as a crash would look to others. */
  crash(): Promise<ChildExit>;
}

const live = new Set<Child>();

// When the runner ends a test file early, the children go with it.
process.once('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    killAll();
    process.exit(130);
  });
}

function killAll(): void {
  for (const child of live) child.kill('SIGKILL');
}

/** Starts a program that is stopped after the test. It does not wait for it to be up. */
export async function startProcess(t: TestContext, spec: TestProcessSpec): Promise<TestProcess> {
  const child = await startChild({ env: { PATH: process.env.PATH ?? '', HOME: tmpdir() }, ...spec });
  live.add(child);
  const stop = async (): Promise<ChildExit> => {
    const exit = await child.stop(10_000, sleep);
    live.delete(child);
    return exit;
  };
  t.after(stop);
  return {
    ...child,
    stop,
    async crash() {
      child.kill('SIGKILL');
      return stop();
    },
    async waitForLine(pattern, { since = 0, timeoutMs = 15_000 } = {}) {
      const what = `${child.name} to print ${pattern}`;
      const probe = (): { line?: string } | undefined => {
        const line = child.linesSince(since).find((text) => pattern.test(text));
        if (line !== undefined) return { line };
        return child.exited() === undefined ? undefined : {};
      };
      const found = await until(what, probe, { timeoutMs }).catch((cause: unknown) => {
        throw new Error(`waited in vain for ${what}; it said:\n${tail(child)}`, { cause });
      });
      if (found.line === undefined)
        throw new Error(`${child.name} ended; waited for ${what}:\n${tail(child)}`);
      return found.line;
    },
  };
}

function tail(child: Child): string {
  return child.recentLines().slice(-30).join('\n');
}

/** Runs a program to its end and gives what it printed; the test decides what the exit code means. */
export async function runProcess(
  t: TestContext,
  spec: TestProcessSpec,
): Promise<{ code: number | undefined; output: string }> {
  const running = await startProcess(t, spec);
  const { code } = await running.exit;
  return { code, output: running.recentLines().join('\n') };
}

/** Polls until `probe` gives a value; a probe that throws is asked again. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | Promise<T | undefined>,
  { timeoutMs = 15_000 }: { timeoutMs?: number } = {},
): Promise<T> {
  const signal = new AbortController().signal;
  return poll({ what, timeoutMs, intervalMs: 25, sleep }, signal, async () => probe());
}

/** A directory for one test, removed after it. Its path is short enough for unix sockets. */
export async function tempDirectory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'svidecar-test-'));
  t.after(() => rm(path, { recursive: true, force: true, maxRetries: 3 }));
  return path;
}
