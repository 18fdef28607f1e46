import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import type { TestContext } from 'node:test';
import { runProcess, type TestProcessSpec } from './process.ts';

/** How to run a client of ours that is written with somebody else's SPIFFE library. */
export type ForeignClient = Pick<TestProcessSpec, 'command' | 'args'>;

const fixtures = join(import.meta.dirname, '../fixtures');
const cache = join(import.meta.dirname, '../../.cache/foreign-clients');

/** The go-spiffe client, built with the `go` on PATH. A missing one fails the test. */
export async function goSpiffeClient(t: TestContext): Promise<ForeignClient> {
  const binary = join(cache, 'go-spiffe-client');
  await mkdir(cache, { recursive: true });
  await build(t, 'go', ['build', '-o', binary, '.'], 'install Go 1.25 or newer', 'go-spiffe-client');
  return { command: binary, args: [] };
}

/** The py-spiffe client in a virtual environment made by the `python3` on PATH. A missing one fails the test. */
export async function pySpiffeClient(t: TestContext): Promise<ForeignClient> {
  const directory = join(fixtures, 'py-spiffe-client');
  const requirements = join(directory, 'requirements.txt');
  const environment = join(cache, 'py-spiffe');
  const python = join(environment, 'bin/python');
  const complete = join(environment, 'complete');
  const remedy = 'install Python 3.10 or newer with venv';
  if (!(await exists(complete))) {
    await rm(environment, { recursive: true, force: true });
    await build(t, 'python3', ['-m', 'venv', environment], remedy);
  }
  // Cheap when everything is there, and right when the pinned version has changed.
  await build(t, python, ['-m', 'pip', 'install', '--quiet', '--requirement', requirements], remedy);
  await writeFile(complete, '');
  return { command: python, args: [join(directory, 'client.py')] };
}

async function build(
  t: TestContext,
  command: string,
  args: readonly string[],
  remedy: string,
  fixture = '',
): Promise<void> {
  const env = Object.fromEntries(
    Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  const cwd = join(fixtures, fixture);
  const { code, output } = await runProcess(t, { name: command, command, args, env, cwd }).catch(
    (cause: unknown) => {
      throw new Error(`${command} is needed to check foreign clients: ${remedy}`, { cause });
    },
  );
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} failed:\n${output}`);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
