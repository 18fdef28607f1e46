import { loopbackHttp } from './loopback-http.ts';
import type { ServiceSpec } from './supervisor.ts';

export type SidecarOptions = Readonly<{
  name: string;
  /** How this program is started: executable and first arguments. */
  program: readonly [string, ...string[]];
  configFile: string;
  /** The port of its admin server on the loopback address, as in the config. */
  adminPort: number;
  onLine?: (line: string) => void;
}>;

/** A sidecar to be supervised; ready when its admin server says so. */
export function sidecarService(options: SidecarOptions): ServiceSpec {
  const [command, ...args] = options.program;
  return Object.freeze({
    name: options.name,
    command,
    args: [...args, 'run', '--config', options.configFile],
    env: {},
    ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
    readyTimeoutMs: 20_000,
    async ready(signal: AbortSignal) {
      return (await loopbackHttp({ port: options.adminPort, path: '/ready' }, signal)).status === 200;
    },
  });
}
