import { UnavailableError } from '../runtime/errors.ts';
import { loopbackHttp } from './loopback-http.ts';
import type { ServiceSpec } from './supervisor.ts';

export type EnvoyOptions = Readonly<{
  name: string;
  /** The executable. */
  binary: string;
  /** The bootstrap file. */
  configFile: string;
  /** The port of its admin interface on the loopback address, as in the bootstrap. */
  adminPort: number;
  logLevel?: 'error' | 'warning' | 'info' | 'debug';
  onLine?: (line: string) => void;
}>;

/**
 * An Envoy to be supervised: one worker, no hot restart (so any number run on one machine), ready when its admin
 * interface says that listeners and secrets are in place.
 */
export function envoyService(options: EnvoyOptions): ServiceSpec {
  const { name, binary, configFile, adminPort, logLevel = 'warning', onLine } = options;
  return Object.freeze({
    name,
    command: binary,
    args: ['-c', configFile, '--disable-hot-restart', '--concurrency', '1', '--log-level', logLevel],
    env: {},
    ...(onLine === undefined ? {} : { onLine }),
    readyTimeoutMs: 20_000,
    async ready(signal: AbortSignal) {
      return (await envoyAdmin(adminPort, '/ready', signal)).trim() === 'LIVE';
    },
  });
}

/** The body of an Envoy admin page; rejects with UnavailableError when Envoy does not answer or not with 200. */
export async function envoyAdmin(adminPort: number, path: string, signal: AbortSignal): Promise<string> {
  const { status, body } = await loopbackHttp({ port: adminPort, path }, signal);
  if (status !== 200) throw new UnavailableError(`envoy admin ${path}: status ${status}`);
  return body;
}

/** The counters and gauges of an Envoy whose names match `filter`. */
export async function envoyStats(
  adminPort: number,
  filter: RegExp,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const text = await envoyAdmin(adminPort, `/stats?filter=${encodeURIComponent(filter.source)}`, signal);
  const stats = new Map<string, number>();
  for (const line of text.split('\n')) {
    const match = /^(?<name>.+): (?<value>\d+)$/.exec(line);
    if (match?.groups !== undefined) stats.set(match.groups.name ?? '', Number(match.groups.value));
  }
  return stats;
}
