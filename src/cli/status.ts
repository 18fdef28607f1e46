import type { Status } from '../admin/status.ts';
import { parseEngineUrl } from '../config/address.ts';
import { loadConfig } from '../config/load.ts';
import { createHttpClient } from '../http/client.ts';
import { ConfigError, MalformedError, messageOf, UnavailableError } from '../runtime/errors.ts';
import { parseJson } from '../runtime/parse-json.ts';
import { formatHostPort } from '../runtime/socket-address.ts';
import { readText } from './config-file.ts';
import { type CliOptions, type ExitCode, printJson, printLine } from './io.ts';
import { formatTable } from './table.ts';

export type StatusFlags = Readonly<{
  config: string | undefined;
  admin: string | undefined;
  json: boolean;
  timeoutMs: number;
}>;

const maxAnswerBytes = 8 * 1024 * 1024;

/** `status`: what a running sidecar says of itself; 1 when none answers. */
export async function status(io: CliOptions, flags: StatusFlags): Promise<ExitCode> {
  const url = flags.admin === undefined ? await configuredAdmin(io, flags.config) : parseAdmin(flags.admin);
  const http = createHttpClient({ maxSockets: 1 });
  try {
    const { timeoutMs } = flags;
    const request = { method: 'GET', url, path: '/status', timeoutMs, maxBytes: maxAnswerBytes } as const;
    const answer = await http.request(request, io.signal).catch((error: unknown) => {
      if (!(error instanceof UnavailableError)) throw error;
      const remedy = 'start it, or say with --config or --admin where its admin server is';
      throw new UnavailableError(`no sidecar answers (${error.message}): ${remedy}`, { cause: error });
    });
    if (answer.status !== 200) throw new UnavailableError(`${url}/status answers ${answer.status}`);
    const value = parseStatus(answer.body, url);
    if (flags.json) printJson(io.stdout, value);
    else printLine(io.stdout, formatStatus(value));
    return 0;
  } finally {
    http.close();
  }
}

function parseAdmin(text: string): string {
  try {
    return parseEngineUrl(text);
  } catch (error) {
    throw new ConfigError([{ path: '--admin', message: messageOf(error) }]);
  }
}

/** The admin address as the sidecar of this config and environment has it; 0.0.0.0 is reached over loopback. */
async function configuredAdmin(io: CliOptions, path: string | undefined): Promise<string> {
  const text = path === undefined ? undefined : await readText(path);
  const { host, port } = loadConfig({ text, path, env: io.env }).config.admin.listen;
  const reachable = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
  return `http://${formatHostPort({ host: reachable, port })}`;
}

function parseStatus(body: Buffer, url: string): Status {
  try {
    const value = parseJson(body.toString('utf8')) as Status;
    if (Array.isArray(value.identity.svids) && Array.isArray(value.envoys)) return value;
  } catch {
    // Said below: whatever it is, it is no status.
  }
  throw new MalformedError(`what answers at ${url} is no svidecar`);
}

/** The status as text for people. */
export function formatStatus(status: Status): string {
  const { identity, policy } = status;
  const blocks = [
    `svidecar ${status.version}  ${status.ready ? 'ready' : 'not ready'}  since ${status.started_at}`,
    ...status.missing.map(({ part, reason }) => `missing ${part}: ${reason}`),
    `\nidentity from ${identity.source}${identity.problem === undefined ? '' : `: ${identity.problem}`}`,
    formatTable(
      ['SPIFFE ID', 'EXPIRES', 'SERIAL'],
      identity.svids.map((svid) => [
        svid.spiffe_id,
        `${svid.expires_at}${svid.expired ? ' (expired)' : ''}`,
        svid.serial,
      ]),
    ),
    formatTable(
      ['TRUST DOMAIN', 'X.509', 'JWT', 'LAST EXPIRES'],
      status.trust_domains.map((domain) => [
        `${domain.name}${domain.own ? ' (own)' : ''}`,
        String(domain.x509_authorities),
        String(domain.jwt_authorities),
        domain.expires_at ?? 'not trusted',
      ]),
    ),
    formatTable(
      ['ENVOY', 'PROTOCOL', 'SECRETS', 'ANSWER'],
      status.envoys.map((envoy) => [
        envoy.node_id,
        envoy.protocol,
        envoy.names.join(' '),
        `${envoy.ack}${envoy.nack_message === undefined ? '' : `: ${envoy.nack_message}`}`,
      ]),
    ),
    formatTable(
      ['FILES', 'WRITTEN', 'PROBLEM'],
      status.outputs.map(({ directory, written_at: at, problem }) => [
        directory,
        at ?? 'not yet',
        problem ?? '',
      ]),
    ),
    ...(policy === undefined
      ? []
      : [
          `\npolicy ${policy.engine} ${policy.ready ? 'ready' : 'not ready'}${policy.problem === undefined ? '' : `: ${policy.problem}`}`,
          formatTable(
            ['BUNDLE', 'REVISION', 'IN FORCE SINCE', 'SERVICE ANSWERED', 'PROBLEM'],
            policy.bundles.map((bundle) => [
              bundle.name,
              bundle.revision ?? '',
              bundle.activated_at ?? 'not yet',
              bundle.service === undefined ? 'a file' : (bundle.service.answered_at ?? 'not yet'),
              bundle.problem ?? '',
            ]),
          ),
          formatTable(
            ['DECIDED', 'OUTCOME', 'REASON', 'PEER', 'REQUEST'],
            status.decisions.map((decision) => [
              decision.time,
              decision.outcome,
              decision.reason_code ?? '',
              decision.peer ?? '',
              decision.request ?? '',
            ]),
          ),
        ]),
  ];
  return blocks.filter((block) => block !== '').join('\n');
}
