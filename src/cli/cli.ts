import yargs, { type Argv } from 'yargs';
import { systemClock } from '../app/clock.ts';
import { parseDuration } from '../config/units.ts';
import { AbortedError, ConfigError, messageOf } from '../runtime/errors.ts';
import { bootstrap } from './bootstrap.ts';
import { configFlags } from './config-file.ts';
import { demo } from './demo.ts';
import { explain } from './explain.ts';
import { fetchBundles, fetchJwt, fetchX509 } from './fetch.ts';
import { type CliOptions, type ExitCode, printLine } from './io.ts';
import { run } from './run.ts';
import { status } from './status.ts';
import { validate } from './validate.ts';
import { readVersion } from './version.ts';

/** A mistake in how the program was called. */
class UsageError extends Error {}

const usage = 64;

/**
 * Runs one command of the program and gives its exit code: 0 fine, 1 runtime failure, 64 usage or config. Writes to the
 * streams that it is given, and ends nothing by itself.
 */
export async function runCli(io: CliOptions): Promise<ExitCode> {
  const clock = systemClock;
  let code: ExitCode = 0;
  let printed = '';
  const does = (work: () => Promise<ExitCode>) => async (): Promise<void> => {
    code = await work();
  };
  const parser = yargs()
    .scriptName('svidecar')
    .usage('$0 COMMAND [flags]\n\nSPIFFE-native SDS and ext_authz sidecar for Envoy.')
    .detectLocale(false)
    .wrap(110)
    .version(await readVersion())
    .alias('h', 'help')
    .strict()
    .recommendCommands()
    .demandCommand(1, 'name a command')
    .exitProcess(false)
    .fail((message: string | null, error: Error | undefined) => {
      throw error ?? new UsageError(message ?? 'usage');
    })
    .check((argv) => {
      const twice = Object.entries(argv).find(
        ([name, value]) => Array.isArray(value) && !repeatable.has(name),
      );
      if (twice !== undefined) throw new UsageError(`--${twice[0]} is given twice`);
      return true;
    });
  const commands = parser
    .command('run', 'serve SDS, ext_authz and the admin server until SIGTERM', configured, (argv) =>
      does(() => run(io, argv))(),
    )
    .command(
      'validate',
      'read the config and everything it names; print every problem, or the effective config',
      (y) =>
        timed(configured(y), '10s').option('online', {
          type: 'boolean',
          default: false,
          describe: 'also try the identity source, the policy engine and the bundle endpoints',
        }),
      (argv) => does(() => validate(io, clock, { ...argv, timeoutMs: timeoutOf(argv) }))(),
    )
    .command('bootstrap', 'print an Envoy bootstrap that fits the config', bootstrapFlags, (argv) =>
      does(() => bootstrap(io, argv))(),
    )
    .command(
      'explain <check>',
      'judge one CheckRequest (a JSON file): peer, query, input, decision, response',
      (y) =>
        timed(configured(y), '5s')
          .positional('check', { type: 'string', demandOption: true, describe: 'the file' })
          .option('without-identity', {
            type: 'boolean',
            default: false,
            describe: 'do not ask the identity source: no bundles are held, no certificate is trusted',
          }),
      (argv) => does(() => explain(io, clock, { ...argv, timeoutMs: timeoutOf(argv) }))(),
    )
    .command('fetch', 'one look at the Workload API', (y) =>
      y
        .command('x509', 'X.509-SVIDs', pemFlags, (argv) =>
          does(() => fetchX509(io, clock, { ...argv, timeoutMs: timeoutOf(argv) }))(),
        )
        .command(
          'jwt',
          'JWT-SVIDs for an audience',
          (inner) =>
            fetchFlags(inner, ['json'] as const, 'json')
              .option('audience', {
                type: 'string',
                array: true,
                demandOption: true,
                describe: 'whom the JWT-SVID is for; may be repeated',
              })
              .option('spiffe-id', { type: 'string', describe: 'only for this identity of the workload' }),
          (argv) => does(() => fetchJwt(io, clock, { ...argv, timeoutMs: timeoutOf(argv) }))(),
        )
        .command('bundles', 'X.509 and JWT bundles, own and federated', pemFlags, (argv) =>
          does(() => fetchBundles(io, clock, { ...argv, timeoutMs: timeoutOf(argv) }))(),
        )
        .demandCommand(1, 'name what to fetch: x509, jwt or bundles'),
    )
    .command(
      'status',
      'ask a running sidecar how it is',
      (y) =>
        timed(y, '5s')
          .option('config', { type: 'string', describe: 'the config that says where its admin server is' })
          .option('admin', { type: 'string', describe: 'its admin server, such as http://127.0.0.1:9902' })
          .option('json', { type: 'boolean', default: false, describe: 'for scripts' }),
      (argv) => does(() => status(io, { ...argv, timeoutMs: timeoutOf(argv) }))(),
    )
    .command(
      'demo',
      'show everything on this machine: two trust domains, real Envoys, mTLS, allow and deny, a rotation',
      (y) => y.option('keep', { type: 'boolean', default: false, describe: 'leave it running until Ctrl-C' }),
      (argv) => does(() => demo(io, clock, argv))(),
    );
  try {
    await commands.parseAsync([...io.argv], {}, (_error: unknown, _argv: unknown, output: string) => {
      printed = output;
    });
    if (printed !== '') printLine(io.stdout, printed);
    return code;
  } catch (error) {
    return tell(io, error);
  }
}

const repeatable: ReadonlySet<string> = new Set(['_', 'audience']);

function tell({ stderr, signal }: CliOptions, error: unknown): ExitCode {
  if (error instanceof ConfigError) {
    const lines = error.problems.map(({ path, message }) => `  ${path === '' ? '' : `${path}: `}${message}`);
    printLine(stderr, ['svidecar: the configuration is not right', ...lines].join('\n'));
    return usage;
  }
  if (error instanceof UsageError) {
    printLine(stderr, `svidecar: ${error.message}\nsee svidecar --help, or svidecar COMMAND --help`);
    return usage;
  }
  if (error instanceof AbortedError && signal.aborted) printLine(stderr, 'svidecar: stopped');
  else printLine(stderr, `svidecar: ${messageOf(error)}`);
  return 1;
}

/** The flags of every command that reads a config. */
function configured<T>(y: Argv<T>) {
  const set = (flag: keyof typeof configFlags) =>
    ({ type: 'string', describe: `overrides ${configFlags[flag]}` }) as const;
  return y
    .option('config', { type: 'string', demandOption: true, describe: 'the config file, YAML or JSON' })
    .option('listen', set('listen'))
    .option('admin-listen', set('admin-listen'))
    .option('workload-api', set('workload-api'))
    .option('trust-domain', set('trust-domain'))
    .option('log-level', set('log-level'));
}

function bootstrapFlags<T>(y: Argv<T>) {
  return configured(y)
    .option('mode', {
      choices: ['server', 'client'] as const,
      default: 'server' as const,
      describe: 'server: mTLS in, plain text to the application; client: plain text in, mTLS out',
    })
    .option('protocol', {
      choices: ['http', 'tcp'] as const,
      default: 'http' as const,
      describe: 'what is proxied',
    })
    .option('sds', {
      choices: ['sotw', 'delta'] as const,
      default: 'sotw' as const,
      describe: 'how SDS is asked',
    })
    .option('listener', { type: 'string', demandOption: true, describe: 'IP:PORT that Envoy listens on' })
    .option('upstream', {
      type: 'string',
      demandOption: true,
      describe: 'HOST:PORT or unix:///PATH; server: the application; client: the Envoy that is called',
    })
    .option('upstream-spiffe-id', {
      type: 'string',
      describe: 'client: who the called Envoy must be; a SPIFFE ID, or a pattern with *',
    })
    .option('upstream-http2', {
      type: 'boolean',
      default: false,
      describe: 'server: speak HTTP/2 to the application, as gRPC needs',
    })
    .option('trust', {
      choices: ['own', 'all'] as const,
      describe: 'bundles that peers may be of; default: all when identities of another domain are allowed',
    })
    .option('envoy-admin', {
      type: 'string',
      describe: "IP:PORT of Envoy's own admin interface; default: none",
    })
    .option('node-id', { type: 'string', default: 'envoy', describe: "Envoy's node id" })
    .option('node-cluster', { type: 'string', default: 'envoy', describe: "Envoy's node cluster" });
}

function fetchFlags<T, O extends string>(y: Argv<T>, outputs: readonly O[], otherwise: O) {
  return timed(y, '10s')
    .option('workload-api', {
      type: 'string',
      describe:
        'unix:///PATH or tcp://IP:PORT; default: $SPIFFE_ENDPOINT_SOCKET, then the default of the config',
    })
    .option('output', { choices: outputs, default: otherwise, describe: 'how it is printed' })
    .option('write', {
      type: 'string',
      describe: 'write files to this directory, private keys (0600) included',
    });
}

function pemFlags<T>(y: Argv<T>) {
  return fetchFlags(y, ['json', 'pem'] as const, 'json');
}

function timed<T>(y: Argv<T>, otherwise: string) {
  return y.option('timeout', {
    type: 'string',
    default: otherwise,
    describe: 'how long an answer is waited for',
  });
}

function timeoutOf({ timeout }: Readonly<{ timeout: string }>): number {
  try {
    return parseDuration(timeout);
  } catch (error) {
    throw new UsageError(`--timeout ${messageOf(error)}`, { cause: error });
  }
}
