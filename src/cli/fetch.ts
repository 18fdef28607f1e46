import type { Clock } from '../app/clock.ts';
import type { Environment } from '../config/environment.ts';
import { withDeadline } from '../runtime/abort.ts';
import { ConfigError, messageOf, UnavailableError } from '../runtime/errors.ts';
import { silentLogger } from '../runtime/log.ts';
import type { JwtBundleSet, X509BundleSet } from '../spiffe/bundle.ts';
import { formatJwks } from '../spiffe/bundle-document.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../spiffe/certificate.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { IdentitySource, WatchEvent } from '../workload/identity-source.ts';
import { createWorkloadApiSource } from '../workload/workload-api.ts';
import { readConfig } from './config-file.ts';
import { silentWorkloadMeter } from './first-identity.ts';
import { type CliOptions, type ExitCode, printJson, printLine } from './io.ts';
import { type OutFile, writeFiles } from './write-files.ts';

export type FetchFlags = Readonly<{
  workloadApi: string | undefined;
  output: 'json' | 'pem';
  /** A directory that everything goes to, private keys included. */
  write: string | undefined;
  timeoutMs: number;
}>;

export type JwtFlags = FetchFlags & Readonly<{ audience: readonly string[]; spiffeId: string | undefined }>;

/** `fetch x509`: the X.509-SVIDs of this workload. Private keys go to files only, never to the terminal. */
export async function fetchX509(io: CliOptions, clock: Clock, flags: FetchFlags): Promise<ExitCode> {
  const context = await once(io, clock, flags, (source, signal) => firstUpdate(source.watchX509(signal)));
  if (flags.write !== undefined) {
    return write(io, flags.write, [...context.svids.flatMap(svidFiles), ...bundleFiles(context.bundles)]);
  }
  if (flags.output === 'pem') {
    for (const { chain } of context.svids) io.stdout.write(encodeCertificatesPem(chain));
  } else {
    printJson(io.stdout, { svids: context.svids.map(describeX509) });
  }
  return 0;
}

/** `fetch jwt`: JWT-SVIDs for the audiences. */
export async function fetchJwt(io: CliOptions, clock: Clock, flags: JwtFlags): Promise<ExitCode> {
  const { audience: audiences } = flags;
  const spiffeId = flags.spiffeId === undefined ? undefined : parseIdFlag(flags.spiffeId);
  const svids = await once(io, clock, flags, (source, signal) =>
    source.fetchJwtSvids({ audiences, spiffeId }, signal),
  );
  if (flags.write !== undefined) {
    const files = svids.map(
      ({ token }, i): OutFile => ({ name: `jwt.${i}.token`, content: token, secret: true }),
    );
    return write(io, flags.write, files);
  }
  printJson(io.stdout, { svids: svids.map(describeJwt) });
  return 0;
}

function parseIdFlag(text: string): SpiffeId {
  try {
    return parseSpiffeId(text);
  } catch (error) {
    throw new ConfigError([{ path: '--spiffe-id', message: messageOf(error) }]);
  }
}

/** `fetch bundles`: what this workload may trust, own and federated. */
export async function fetchBundles(io: CliOptions, clock: Clock, flags: FetchFlags): Promise<ExitCode> {
  const [{ bundles }, jwtBundles] = await once(io, clock, flags, (source, signal) =>
    Promise.all([firstUpdate(source.watchX509(signal)), firstUpdate(source.watchJwtBundles(signal))]),
  );
  if (flags.write !== undefined) {
    return write(io, flags.write, [...bundleFiles(bundles), ...jwksFiles(jwtBundles)]);
  }
  if (flags.output === 'pem') {
    for (const { trustDomain, authorities } of bundles.values()) {
      printLine(io.stdout, `# ${trustDomain}`);
      io.stdout.write(encodeCertificatesPem(authorities));
    }
  } else {
    printJson(io.stdout, { trust_domains: describeBundles(bundles, jwtBundles) });
  }
  return 0;
}

/** One look: connects, asks, and disconnects; a failure is the Workload API's own word, without a retry. */
async function once<T>(
  io: CliOptions,
  clock: Clock,
  flags: Pick<FetchFlags, 'workloadApi' | 'timeoutMs'>,
  ask: (source: IdentitySource, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { config } = await readConfig(
    undefined,
    { 'workload-api': flags.workloadApi },
    withoutSource(io.env),
  );
  const { address } = config.identity.workloadApi;
  const source = createWorkloadApiSource({
    address,
    ...clock,
    log: silentLogger,
    meter: silentWorkloadMeter,
  });
  const stop = new AbortController();
  try {
    return await withDeadline(flags.timeoutMs, AbortSignal.any([io.signal, stop.signal]), (bounded) =>
      ask(source, bounded),
    );
  } catch (error) {
    if (io.signal.aborted) throw error;
    // What the source says of a call names the Workload API already.
    const [name, message] = [`workload api ${address}`, messageOf(error)];
    throw new UnavailableError(message.startsWith(name) ? message : `${name}: ${message}`, { cause: error });
  } finally {
    stop.abort();
  }
}

/** Where `run` takes its identity from is another question: this command always asks the Workload API. */
function withoutSource(env: Environment): Environment {
  const { TLS_MODE: _, SVIDECAR_IDENTITY_SOURCE: __, ...rest } = env;
  return rest;
}

async function firstUpdate<T>(events: AsyncIterable<WatchEvent<T>>): Promise<T> {
  for await (const event of events) {
    if (event.kind === 'update') return event.value;
    throw event.error;
  }
  throw new UnavailableError('the stream ended without an answer');
}

function svidFiles({ chain, privateKey }: X509Svid, index: number): readonly OutFile[] {
  return [
    { name: `svid.${index}.key`, content: encodePrivateKeyPem(privateKey), secret: true },
    { name: `svid.${index}.pem`, content: encodeCertificatesPem(chain), secret: false },
  ];
}

function bundleFiles(bundles: X509BundleSet): readonly OutFile[] {
  return [...bundles.values()].map(({ trustDomain, authorities }) => ({
    name: `bundle.${trustDomain}.pem`,
    content: encodeCertificatesPem(authorities),
    secret: false,
  }));
}

function jwksFiles(bundles: JwtBundleSet): readonly OutFile[] {
  return [...bundles.values()].map((bundle) => ({
    name: `jwks.${bundle.trustDomain}.json`,
    content: formatJwks(bundle),
    secret: false,
  }));
}

async function write(io: CliOptions, directory: string, files: readonly OutFile[]): Promise<ExitCode> {
  for (const path of await writeFiles(directory, files)) printLine(io.stdout, path);
  return 0;
}

function describeX509({ spiffeId, chain, hint }: X509Svid): object {
  const [leaf] = chain;
  return {
    spiffe_id: spiffeId,
    trust_domain: trustDomainOf(spiffeId),
    serial: leaf.serial,
    not_before: time(leaf.notBefore),
    expires_at: time(leaf.notAfter),
    ...(hint === '' ? {} : { hint }),
    certificate: encodeCertificatesPem(chain).toString(),
  };
}

function describeJwt({ spiffeId, audiences, token, expiresAt, hint, claims }: JwtSvid): object {
  return {
    spiffe_id: spiffeId,
    audience: audiences,
    ...(hint === '' ? {} : { hint }),
    jwt: token,
    expires_at: time(expiresAt),
    claims,
  };
}

function describeBundles(bundles: X509BundleSet, jwtBundles: JwtBundleSet): object {
  const domains = [...new Set([...bundles.keys(), ...jwtBundles.keys()])].sort();
  return Object.fromEntries(
    domains.map((domain) => [
      domain,
      {
        x509_authorities: (bundles.get(domain)?.authorities ?? []).map((authority) =>
          encodeCertificatesPem([authority]).toString(),
        ),
        jwt_authorities: (jwtBundles.get(domain)?.authorities ?? []).map(({ jwk }) => jwk),
      },
    ]),
  );
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}
