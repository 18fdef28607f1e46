import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { aborted, type Sleep } from '../runtime/abort.ts';
import { AbortedError, AppError, messageOf } from '../runtime/errors.ts';
import type { DemoGround } from './demo-cell.ts';
import { runScenes } from './demo-scenes.ts';
import { requireExecutable } from './executables.ts';
import { freePorts } from './ports.ts';
import { runStack } from './supervisor.ts';

export type DemoOptions = Readonly<{
  /** How this program is started: executable and first arguments; the demo runs its sidecars with it. */
  program: readonly [string, ...string[]];
  /** Where Envoy and OPA are looked for after the project's own cache, as the directories of PATH. */
  searchPath: readonly string[];
  /** Leave everything running after the last line, until `signal` fires. */
  keep: boolean;
  /** Takes the lines that the demo tells, without line ends. */
  tell: (line: string) => void;
  sleep: Sleep;
  now: () => number;
  random: () => number;
}>;

const project = join(import.meta.dirname, '../..');
const REMEDY = 'run `npm run binaries` in the project, or put it on PATH';
const PORTS = 24;

/**
 * Shows the whole program at work on this machine: two trust domains, each with a sidecar, an embedded CA and a pair of
 * real Envoys. Gives true when every line that it told is true, false at the first one that is not. Rejects with
 * AbortedError when `signal` fires before the end. Nothing is left behind: no process, no file.
 */
export async function runDemo(options: DemoOptions, signal: AbortSignal): Promise<boolean> {
  const { program, searchPath, keep, tell, sleep, now, random } = options;
  const directories = [join(project, '.cache/bin'), ...searchPath];
  const envoy = await requireExecutable('envoy', directories, REMEDY);
  const opa = await requireExecutable('opa', directories, REMEDY);
  const startedAt = now();
  const upstream = await startUpstream();
  const directory = await mkdtemp(join(tmpdir(), 'svidecar-demo-'));
  try {
    const ports = [...(await freePorts(PORTS, random))];
    const nextPort = (): number => {
      const port = ports.pop();
      if (port === undefined) throw new AppError('internal', `the demo uses more than ${PORTS} ports`);
      return port;
    };
    return await runStack({ graceMs: 10_000, sleep }, signal, async (stack, linked) => {
      const ground: DemoGround = {
        stack,
        directory,
        program,
        envoy,
        opa,
        nextPort,
        upstreamPort: upstream.port,
      };
      const policy = join(project, 'examples/quickstart/policy');
      const summary = await runScenes({ ground, policy, tell, sleep }, linked);
      if (summary === undefined) return false;
      tell(`done  every line above is true, after ${((now() - startedAt) / 1000).toFixed(1)} s`);
      if (!keep) return true;
      for (const line of summary) tell(line);
      tell('keep  everything stays up until Ctrl-C');
      await aborted(linked);
      if (!signal.aborted) throw new AbortedError();
      return true;
    });
  } catch (error) {
    if (!(error instanceof AbortedError)) tell(`FAIL  ${messageOf(error)}`);
    if (signal.aborted) throw new AbortedError();
    return false;
  } finally {
    upstream.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** The service that the server Envoys protect. */
async function startUpstream(): Promise<{ port: number; close: () => void }> {
  const server = createServer((request, response) => {
    request.resume();
    response.end('hello from the service\n');
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
