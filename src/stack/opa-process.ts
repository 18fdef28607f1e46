import { loopbackHttp } from './loopback-http.ts';
import type { ServiceSpec } from './supervisor.ts';

export type OpaOptions = Readonly<{
  name: string;
  /** The executable. */
  binary: string;
  port: number;
  /** Policies (`.rego`) and data (`.json`). */
  files: readonly string[];
}>;

/** An OPA server to be supervised, on the loopback address; ready when it is healthy, its policies loaded. */
export function opaService({ name, binary, port, files }: OpaOptions): ServiceSpec {
  const address = `127.0.0.1:${port}`;
  return Object.freeze({
    name,
    command: binary,
    args: ['run', '--server', '--disable-telemetry', '--log-level', 'error', '--addr', address, ...files],
    env: {},
    readyTimeoutMs: 20_000,
    async ready(signal: AbortSignal) {
      return (await loopbackHttp({ port, path: '/health' }, signal)).status === 200;
    },
  });
}
