import { parseHostPort, parseUnixPath } from '../config/address.ts';
import { type BootstrapOptions, buildBootstrap, formatBootstrap } from '../envoy/bootstrap.ts';
import type { Target } from '../envoy/cluster.ts';
import { ConfigError, type ConfigProblem, MalformedError, messageOf } from '../runtime/errors.ts';
import { parseIdPattern } from '../spiffe/match.ts';
import { type ConfigFlags, readConfig } from './config-file.ts';
import { type CliOptions, type ExitCode, printLine } from './io.ts';

export type BootstrapFlags = ConfigFlags &
  Pick<BootstrapOptions, 'mode' | 'protocol' | 'sds' | 'trust'> &
  Readonly<{
    config: string;
    listener: string;
    upstream: string;
    upstreamSpiffeId: string | undefined;
    upstreamHttp2: boolean;
    envoyAdmin: string | undefined;
    nodeId: string;
    nodeCluster: string;
  }>;

/** `bootstrap`: prints an Envoy bootstrap that fits the config. */
export async function bootstrap(io: CliOptions, flags: BootstrapFlags): Promise<ExitCode> {
  const { config } = await readConfig(flags.config, flags, io.env);
  printLine(io.stdout, formatBootstrap(buildBootstrap(config, parseFlags(flags))));
  return 0;
}

function parseFlags(flags: BootstrapFlags): BootstrapOptions {
  const problems: ConfigProblem[] = [];
  const parse = <T>(flag: string, text: string | undefined, parser: (text: string) => T): T | undefined => {
    if (text === undefined) return undefined;
    try {
      return parser(text);
    } catch (error) {
      problems.push({ path: flag, message: messageOf(error) });
      return undefined;
    }
  };
  const listener = parse('--listener', flags.listener, parseHostPort);
  const upstream = parse('--upstream', flags.upstream, parseTarget);
  const upstreamIdentity = parse('--upstream-spiffe-id', flags.upstreamSpiffeId, parseIdPattern);
  const admin = parse('--envoy-admin', flags.envoyAdmin, parseHostPort);
  if (listener === undefined || upstream === undefined || problems.length > 0)
    throw new ConfigError(problems);
  const { mode, protocol, sds, trust, upstreamHttp2, nodeId, nodeCluster } = flags;
  return {
    mode,
    protocol,
    sds,
    trust,
    listener,
    upstream,
    upstreamIdentity,
    upstreamHttp2,
    admin,
    nodeId,
    nodeCluster,
  };
}

/** `HOST:PORT`, where the host is a name or an address (IPv6 in brackets), or `unix:///path`. */
export function parseTarget(text: string): Target {
  if (text.startsWith('unix:')) return { kind: 'unix', path: parseUnixPath(text) };
  // What consists of digits and dots, or has brackets, is an address, and then has to be a right one.
  if (/^[\d.:]+$|^\[/.test(text)) return { kind: 'tcp', ...parseHostPort(text) };
  const [, host, digits] = /^([a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (host === undefined) throw new MalformedError('must be HOST:PORT or unix:///PATH');
  if (port < 1 || port > 65_535) throw new MalformedError('has a port that is not 1 to 65535');
  return { kind: 'tcp', host, port };
}
