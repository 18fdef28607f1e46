import { writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { opaPath } from './binaries.ts';
import { freePort } from './ports.ts';
import { startProcess, type TestProcess, tempDirectory, until } from './process.ts';

/** A real OPA server with policies in it. */
export interface Opa {
  /** As `policy.opa.url` takes it: `http://127.0.0.1:PORT`, or `unix:///…` */
  readonly url: string;
  readonly process: TestProcess;
  /** Starts it again at the same address, after a stop or a crash. */
  restart(): Promise<Opa>;
}

export type OpaOptions = Readonly<{
  over: 'tcp' | 'unix';
  /** File name → content, `.rego` or `.json`; served from the start. */
  files: Readonly<Record<string, string>>;
  /** Further arguments of `opa run`. */
  args?: readonly string[];
}>;

/** Starts a real OPA that is stopped after the test; resolves when it answers with its policies loaded. */
export async function startOpa(t: TestContext, { over, files, args = [] }: OpaOptions): Promise<Opa> {
  const directory = await tempDirectory(t);
  const paths = await Promise.all(
    Object.entries(files).map(async ([name, content]) => {
      const path = join(directory, name);
      await writeFile(path, content);
      return path;
    }),
  );
  const socket = join(directory, 'opa.sock');
  const port = over === 'tcp' ? await freePort() : undefined;
  const address = port === undefined ? `unix://${socket}` : `127.0.0.1:${port}`;
  const command = await opaPath();

  const start = async (): Promise<Opa> => {
    const process = await startProcess(t, {
      name: 'opa',
      command,
      args: [
        'run',
        '--server',
        '--disable-telemetry',
        '--log-level',
        'error',
        '--addr',
        address,
        ...args,
        ...paths,
      ],
    });
    await until('opa to be healthy', async () => (await isHealthy({ port, socket })) || undefined);
    return { url: port === undefined ? address : `http://${address}`, process, restart: start };
  };
  return start();
}

/** Builds policies into an OPA bundle for the wasm engine and gives its path. */
export async function buildWasmBundle(
  t: TestContext,
  options: Readonly<{
    files: Readonly<Record<string, string>>;
    entrypoints: readonly string[];
    into: string;
  }>,
): Promise<void> {
  const directory = await tempDirectory(t);
  const paths = await Promise.all(
    Object.entries(options.files).map(async ([name, content]) => {
      const path = join(directory, name);
      await writeFile(path, content);
      return path;
    }),
  );
  const build = await startProcess(t, {
    name: 'opa build',
    command: await opaPath(),
    args: [
      'build',
      '-t',
      'wasm',
      ...options.entrypoints.flatMap((entrypoint) => ['-e', entrypoint]),
      '-o',
      options.into,
      ...paths,
    ],
  });
  const { code } = await build.exit;
  if (code !== 0) throw new Error(`opa build failed:\n${build.recentLines().join('\n')}`);
}

function isHealthy(at: { port: number | undefined; socket: string }): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const where = at.port === undefined ? { socketPath: at.socket } : { host: '127.0.0.1', port: at.port };
    const call = request({ ...where, path: '/health', agent: false, timeout: 2000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    call.once('timeout', () => call.destroy(new Error('no answer')));
    call.once('error', reject);
    call.end();
  });
}
