import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import type { TestContext } from 'node:test';
import type { LoopbackAnswer } from '../../src/stack/loopback-http.ts';
import { http } from './http.ts';
import { freePort } from './ports.ts';
import { runProcess, startProcess, type TestProcess, tempDirectory, until } from './process.ts';

/** The program as tests start it. */
export const program: readonly string[] = [process.execPath, join(import.meta.dirname, '../../src/main.ts')];

/** A config file's content; sections as the contract has them. */
export type SidecarConfig = Readonly<Record<string, unknown>>;

/** A running svidecar. */
export interface Sidecar {
  /** The path of its gRPC socket. */
  readonly socket: string;
  readonly adminPort: number;
  /** Its config file. */
  readonly configFile: string;
  /** The process that runs now: another one after `restart`. */
  process(): TestProcess;
  admin(path: string): Promise<LoopbackAnswer>;
  /** The value of a metric line, by its name and labels as written; 0 when it is not there. */
  metric(line: string): Promise<number>;
  waitForReady(): Promise<void>;
  /** Starts it again with the same config, after a stop or a crash. */
  restart(): Promise<void>;
}

export type SidecarOptions = Readonly<{
  config: SidecarConfig;
  name?: string;
  env?: Readonly<Record<string, string>>;
  /** Flags for Node itself. */
  nodeArgs?: readonly string[];
  /** False for one that is not meant to become ready. */
  waitForReady?: boolean;
}>;

/** Starts the real program; it is stopped after the test. `listen` and `admin` are filled in when the config has none. */
export async function startSidecar(t: TestContext, options: SidecarOptions): Promise<Sidecar> {
  const { config, name = 'svidecar', env, nodeArgs = [], waitForReady = true } = options;
  const directory = await tempDirectory(t);
  const socket = join(directory, 'svidecar.sock');
  const adminPort = await freePort();
  const file = await writeConfig(t, {
    listen: `unix://${socket}`,
    admin: { listen: `127.0.0.1:${adminPort}` },
    ...config,
  });
  const [command, ...args] = program;
  const start = (): Promise<TestProcess> =>
    startProcess(t, {
      name,
      command: command ?? '',
      args: [...nodeArgs, ...args, 'run', '--config', file],
      ...(env === undefined ? {} : { env }),
    });
  const admin = (path: string): Promise<LoopbackAnswer> => http({ port: adminPort, path });

  let running = await start();
  const sidecar: Sidecar = {
    socket,
    adminPort,
    configFile: file,
    process: () => running,
    admin,
    async metric(line) {
      const { body } = await admin('/metrics');
      const found = body.split('\n').find((text) => text.startsWith(`${line} `));
      return Number(found?.slice(line.length + 1) ?? 0);
    },
    async waitForReady() {
      await until(
        `${name} to be ready`,
        async () => {
          const exit = running.exited();
          if (exit !== undefined) return 'ended';
          const { status } = await admin('/ready');
          return status === 200 ? 'ready' : undefined;
        },
        { timeoutMs: 60_000 },
      ).catch((cause: unknown) => {
        throw new Error(
          `${name} did not become ready; it said:\n${running.recentLines().slice(-30).join('\n')}`,
          { cause },
        );
      });
      if (running.exited() !== undefined) {
        throw new Error(`${name} ended; it said:\n${running.recentLines().join('\n')}`);
      }
    },
    async restart() {
      running = await start();
      if (waitForReady) await sidecar.waitForReady();
    },
  };
  if (waitForReady) await sidecar.waitForReady();
  return sidecar;
}

/** Runs one command of the program to its end. */
export function runCommand(
  t: TestContext,
  ...args: readonly string[]
): Promise<{ code: number | undefined; output: string }> {
  const [command, ...first] = program;
  return runProcess(t, { name: `svidecar ${args[0]}`, command: command ?? '', args: [...first, ...args] });
}

/** Writes a config file for one test and gives its path. JSON is YAML. */
export async function writeConfig(t: TestContext, config: SidecarConfig): Promise<string> {
  const file = join(await tempDirectory(t), 'svidecar.yaml');
  await writeFile(file, JSON.stringify(config, undefined, 2));
  return file;
}
