import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { TestContext } from 'node:test';
import { runCli } from '../../../src/cli/cli.ts';
import type { CliOptions } from '../../../src/cli/io.ts';
import { createGrpcServer } from '../../../src/grpc/server.ts';
import { sleep } from '../../../src/runtime/abort.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createDevSource } from '../../../src/workload/dev.ts';
import { createWorkloadApiService } from '../../../src/workload/dev-server.ts';

export type Ran = Readonly<{ code: number; stdout: string; stderr: string }>;

/** Runs the command line in this process, with streams of its own and an empty environment. */
export async function cli(argv: readonly string[], options: Partial<CliOptions> = {}): Promise<Ran> {
  const out = capture();
  const err = capture();
  const code = await runCli({
    argv,
    env: {},
    stdout: out.stream,
    stderr: err.stream,
    signal: new AbortController().signal,
    program: ['false'],
    nodeVersion: '24.0.0',
    async *hangups() {},
    kill: () => undefined,
    runApp: () => Promise.reject(new Error('not run here')),
    ...options,
  });
  return { code, stdout: out.text(), stderr: err.text() };
}

function capture(): { stream: Writable; text: () => string } {
  const parts: Buffer[] = [];
  const stream = new Writable({
    write(chunk: Buffer | string, _encoding, done) {
      parts.push(Buffer.from(chunk));
      done();
    },
  });
  return { stream, text: () => Buffer.concat(parts).toString() };
}

/** A directory that is gone after the test. */
export async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'svidecar-cli-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A file with that text, for flags that name one. */
export async function file(t: TestContext, name: string, text: string): Promise<string> {
  const path = join(await directory(t), name);
  await writeFile(path, text);
  return path;
}

/** An HTTP server on loopback; gives its URL. */
export async function httpServer(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A Workload API of `dev.local` with two identities; gives its address. */
export async function workloadApi(t: TestContext): Promise<string> {
  const source = await createDevSource({
    trustDomain: parseTrustDomain('dev.local'),
    spiffeIds: ['spiffe://dev.local/web', 'spiffe://dev.local/api'].map(parseSpiffeId),
    svidTtlMs: 3_600_000,
    jwtSvidTtlMs: 300_000,
    now: Date.now,
    sleep,
    log: silentLogger,
  });
  const server = createGrpcServer({
    services: [createWorkloadApiService(source, Date.now)],
    log: silentLogger,
  });
  const path = join(await directory(t), 'workload.sock');
  await server.listen({ kind: 'unix', path }, 0o600);
  t.after(() => server.shutdown(0));
  return `unix://${path}`;
}
