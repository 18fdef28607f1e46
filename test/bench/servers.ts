// The servers that are measured: child processes behind unix sockets of one directory.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { sleep } from '../../src/runtime/abort.ts';
import { findExecutable, pathDirectories, requireExecutable } from '../../src/stack/executables.ts';

/** A server under measurement. */
export type Server = Readonly<{ name: string; socketPath: string; process: ChildProcess }>;

const root = fileURLToPath(new URL('../../', import.meta.url));
const policy = path.join(root, 'test/bench/policy/authz.rego');
const data = path.join(root, 'examples/quickstart/policy/data.json');
const never = new AbortController().signal;

/** Compiles the policy for the sidecar with the `opa` on PATH. */
export async function buildBundle(directory: string): Promise<string> {
  const opa = await requireExecutable('opa', searchPath(), 'run `npm run binaries`');
  const bundle = path.join(directory, 'bundle.tar.gz');
  execFileSync(opa, ['build', '-t', 'wasm', '-e', 'envoy/authz/allow', '-o', bundle, policy, data]);
  return bundle;
}

/** The sidecar of this checkout. */
export const ownMain = path.join(root, 'dist/main.js');

/** A sidecar with its embedded identity. `verifyCertificate` is the configuration key of that name. */
export async function startSidecar(options: {
  name: string;
  /** Its dist/main.js. */
  main: string;
  directory: string;
  bundle: string;
  verifyCertificate: 'required' | 'off';
  decisionLog: boolean;
}): Promise<Server & Readonly<{ workloadApi: string }>> {
  const { name, main, verifyCertificate } = options;
  const directory = mkdtempSync(path.join(options.directory, 's'));
  const socketPath = path.join(directory, 'check.sock');
  const workloadApi = `unix://${path.join(directory, 'workload.sock')}`;
  const configFile = path.join(directory, 'svidecar.json');
  const config = {
    identity: {
      source: 'dev',
      dev: {
        trust_domain: 'dev.local',
        spiffe_ids: ['spiffe://dev.local/service/web'],
        serve_workload_api: workloadApi,
      },
    },
    listen: `unix://${socketPath}`,
    ext_authz: { peer: { verify_certificate: verifyCertificate } },
    // A machine that is busy with something else must not turn Checks into denials.
    policy: { engine: 'wasm', bundle: { file: options.bundle }, timeout: '10s' },
    admin: { listen: '127.0.0.1:0' },
    decision_log: { console: options.decisionLog },
    log: { level: 'warn' },
  };
  writeFileSync(configFile, JSON.stringify(config));
  const child = spawn(process.execPath, [main, 'run', '--config', configFile], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await untilListening(child, socketPath);
  return { name, socketPath, process: child, workloadApi };
}

/** A grpc-js server for the same service whose handler does nothing. */
export async function startNoop(directory: string): Promise<Server> {
  const socketPath = path.join(directory, 'noop.sock');
  const child = spawn(process.execPath, [path.join(root, 'test/bench/noop-server.ts'), socketPath], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (child.stdout === null) throw new Error('no stdout');
  await once(createInterface(child.stdout), 'line');
  return { name: 'no-op grpc-js', socketPath, process: child };
}

/** The `opa-envoy-plugin` on PATH with the same policy; undefined, and said so, where there is none. */
export async function startPlugin(directory: string): Promise<Server | undefined> {
  const name = 'opa-envoy-plugin';
  const command = await findExecutable(name, searchPath());
  if (command === undefined) {
    process.stdout.write(`${name} is not on PATH: it is left out (cmd/opa-envoy-plugin of its Go module)\n`);
    return undefined;
  }
  const socketPath = path.join(directory, 'plugin.sock');
  const configFile = path.join(directory, 'plugin.json');
  writeFileSync(
    configFile,
    JSON.stringify({
      plugins: { envoy_ext_authz_grpc: { addr: `unix://${socketPath}`, path: 'envoy/authz/allow' } },
    }),
  );
  const rest = `unix://${path.join(directory, 'plugin-rest.sock')}`;
  const child = spawn(
    command,
    [
      'run',
      '--server',
      '--disable-telemetry',
      '--log-level=error',
      `--addr=${rest}`,
      `--config-file=${configFile}`,
      policy,
      data,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  await untilListening(child, socketPath);
  return { name, socketPath, process: child };
}

/** A server of grpc-go and OPA's evaluator alone, built by the `go` on PATH; undefined, and said so, where there is none. */
export async function startGoAuthz(directory: string): Promise<Server | undefined> {
  const go = await findExecutable('go', searchPath());
  if (go === undefined) {
    process.stdout.write('go is not on PATH: the server of grpc-go and OPA is left out\n');
    return undefined;
  }
  const binary = path.join(directory, 'go-authz');
  execFileSync(go, ['build', '-o', binary, '.'], { cwd: path.join(root, 'test/bench/go-authz') });
  const socketPath = path.join(directory, 'go-authz.sock');
  const child = spawn(binary, [socketPath, policy, data], { stdio: ['ignore', 'ignore', 'inherit'] });
  await untilListening(child, socketPath);
  return { name: 'grpc-go with OPA', socketPath, process: child };
}

/** Seconds of processor time that a process has taken so far, all its threads together. */
export function cpuSeconds({ pid }: ChildProcess): number {
  // proc(5): fields 14 and 15 of stat, in ticks of 10 ms; the name in field 2 may hold anything but a last parenthesis.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function untilListening(child: ChildProcess, socketPath: string): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    if (existsSync(socketPath)) return;
    await sleep(100, never);
  }
  throw new Error(`nobody listens at ${socketPath}`);
}

function searchPath(): readonly string[] {
  return [path.join(root, '.cache/bin'), ...pathDirectories(process.env['PATH'])];
}
