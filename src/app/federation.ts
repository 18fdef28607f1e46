import type { Config } from '../config/config.ts';
import type { FederatedDomainConfig } from '../config/federation-section.ts';
import { createBundleFiles } from '../federation/bundle-files.ts';
import type { FederationEntry } from '../federation/federation-entry.ts';
import { bootstrapOf } from '../federation/fetch-bundle.ts';
import type { FederationMeter } from '../federation/meter.ts';
import { createBundleServer, ownBundle } from '../federation/serve-bundle.ts';
import { type CredentialFiles, fileCredentials, readCredentials } from '../federation/server-credentials.ts';
import { createBundleWatcher } from '../federation/watch-bundles.ts';
import { ConfigError, type ConfigProblem, messageOf } from '../runtime/errors.ts';
import { createFileSet, type FileEvent } from '../runtime/file-watch.ts';
import { createLatest, type Latest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import { parsePemCertificates } from '../spiffe/certificate.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import { type TrustSnapshot, usableDefaultSvid } from '../trust/snapshot.ts';
import type { TrustStore } from '../trust/store.ts';
import { svidCredentials } from '../trust/svid-credentials.ts';
import type { IdentitySource } from '../workload/identity-source.ts';
import type { Clock } from './clock.ts';

/** Where the bundle of a trust domain comes from, and how fresh it is. */
export type FederationBundleInfo = Readonly<{
  source: IdentitySource['name'] | 'endpoint' | 'bootstrap';
  sequence?: bigint | undefined;
  refreshHintS?: number | undefined;
  /** Milliseconds since the epoch. */
  fetchedAt?: number | undefined;
  lastError?: string | undefined;
}>;

/** Federation as configured. */
export type Federation = Readonly<{
  tasks: readonly Task[];
  /** Undefined for a trust domain of which nothing is held or sought. */
  bundleInfo(trustDomain: TrustDomain): FederationBundleInfo | undefined;
}>;

const pollMs = 1_000;
const quietLooks = 1;
/** After that long without JWT authorities the source is taken to have none. */
const jwtGraceMs = 10_000;
const maxFileBytes = 1024 * 1024;
const maxCas = 1000;

/**
 * Keeps the bundles of the partners in the store and publishes our own, as the newest of `configs` and the files it names
 * have it. Rejects with ConfigError when a file at start is not right.
 */
export async function createFederation(options: {
  configs: Latest<Config>;
  source: Pick<IdentitySource, 'name'>;
  store: TrustStore;
  clock: Clock;
  log: Logger;
  meter: FederationMeter;
}): Promise<Federation> {
  const { configs, source, store, clock, log, meter } = options;
  const { now, sleep, random } = clock;
  const { federation } = configs.current();
  const entries = createLatest(await readFederationEntries(federation.trustDomains));
  const files =
    federation.persistDir === undefined ? undefined : await createBundleFiles(federation.persistDir);
  const watcher = createBundleWatcher({ entries, store, files, now, sleep, random, log, meter });
  // Before the identity comes: an Envoy that knows us from before must not be told that its partners are gone.
  await watcher.seed(entries.current());

  /** A changed entry takes effect within a second, a changed file that an entry names within one more: it may be half written. */
  const followConfig: Task = async (signal) => {
    let seen: readonly FederatedDomainConfig[] | undefined;
    let named = createFileSet({ paths: [], maxBytes: maxFileBytes });
    while (!signal.aborted) {
      const { trustDomains } = configs.current().federation;
      const changed = trustDomains !== seen;
      if (changed) {
        named = createFileSet({ paths: filesOf(trustDomains), maxBytes: maxFileBytes, quietLooks });
      }
      seen = trustDomains;
      const contents = await named.look();
      if (changed || contents !== undefined) {
        try {
          entries.set(await readFederationEntries(trustDomains));
        } catch (error) {
          log.error({ error: messageOf(error) }, 'federation entries refused; the old ones stay');
        }
      }
      await sleep(pollMs, signal);
    }
  };

  return {
    tasks: [
      followConfig,
      (signal) => watcher.run(signal),
      ...(federation.serve === undefined ? [] : [await serveTask(federation.serve)]),
    ],
    bundleInfo(trustDomain) {
      const state = watcher.state(trustDomain);
      const { lastError } = state ?? {};
      const origin = store.originOf(trustDomain);
      if (origin === 'source') {
        return {
          source: source.name,
          sequence: store.current().bundles.get(trustDomain)?.sequence,
          lastError,
        };
      }
      if (state === undefined) return undefined;
      const { sequence, refreshHintS, fetchedAt } = state;
      const from = state.origin === 'bootstrap' ? 'bootstrap' : 'endpoint';
      return { source: from, sequence, refreshHintS, fetchedAt, lastError };
    },
  };

  async function serveTask(serve: NonNullable<Config['federation']['serve']>): Promise<Task> {
    const { listen, refreshHintS, files: pair } = serve;
    const { defaultSvidHint } = configs.current().sds;
    const startedAt = now();
    // A partner that asks just after a restart must not believe that our JWT authorities are gone.
    const awaitsJwt = ({ trustDomain, jwtBundles }: TrustSnapshot): boolean =>
      trustDomain !== undefined && !jwtBundles.has(trustDomain) && now() - startedAt < jwtGraceMs;
    if (pair !== undefined) await checkCredentials(pair);
    const server = createBundleServer({
      listen,
      profile: pair === undefined ? 'https_spiffe' : 'https_web',
      credentials:
        pair === undefined
          ? svidCredentials(store, (snapshot) => usableDefaultSvid(snapshot, defaultSvidHint, now()))
          : fileCredentials(pair, { sleep, log }),
      document() {
        const snapshot = store.current();
        return awaitsJwt(snapshot) ? undefined : ownBundle(snapshot, refreshHintS);
      },
      log,
      meter,
    });
    return async (signal) => {
      try {
        await server.listen();
        await server.run(signal);
      } finally {
        await server.close();
      }
    };
  }
}

/** The entries with the content of the files that they name. Throws ConfigError with everything that is wrong in them. */
export async function readFederationEntries(
  trustDomains: readonly FederatedDomainConfig[],
): Promise<readonly FederationEntry[]> {
  const problems: ConfigProblem[] = [];
  const entries: FederationEntry[] = [];
  for (const [
    index,
    { trustDomain, bundleEndpoint: url, profile, bootstrapBundle },
  ] of trustDomains.entries()) {
    const path = `federation.trust_domains[${index}]`;
    const bootstrap = await readText(bootstrapBundle, `${path}.bootstrap_bundle`, problems);
    const caPem =
      profile.kind === 'https_web' ? await readText(profile.caFile, `${path}.ca_file`, problems) : undefined;
    const entry = Object.freeze<FederationEntry>({
      trustDomain,
      url,
      profile:
        profile.kind === 'https_web'
          ? { kind: 'https_web', caPem }
          : { kind: 'https_spiffe', spiffeId: profile.endpointSpiffeId },
      bootstrap,
    });
    attempt(problems, `${path}.bootstrap_bundle`, () => {
      const document = bootstrapOf(entry);
      if (document !== undefined && document.x509.authorities.length === 0) {
        throw new Error('holds no X.509 authority, so nothing could ever be verified with it');
      }
    });
    attempt(problems, `${path}.ca_file`, () => {
      if (caPem !== undefined && parsePemCertificates(caPem, maxCas).length === 0) {
        throw new Error('holds no certificate');
      }
    });
    entries.push(entry);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.freeze(entries);
}

/** Everything that is wrong with the files that `federation` names. */
export async function checkFederationFiles({ federation }: Config): Promise<readonly ConfigProblem[]> {
  const pair = federation.serve?.files;
  const checks = [
    () => readFederationEntries(federation.trustDomains),
    ...(pair === undefined ? [] : [() => checkCredentials(pair)]),
  ];
  const problems: ConfigProblem[] = [];
  for (const check of checks) {
    try {
      await check();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      problems.push(...error.problems);
    }
  }
  return problems;
}

async function checkCredentials(files: CredentialFiles): Promise<void> {
  try {
    await readCredentials(files);
  } catch (error) {
    throw new ConfigError([{ path: 'federation.serve.certificate', message: messageOf(error) }]);
  }
}

function filesOf(trustDomains: readonly FederatedDomainConfig[]): readonly string[] {
  return trustDomains.flatMap(({ bootstrapBundle, profile }) =>
    [bootstrapBundle, profile.kind === 'https_web' ? profile.caFile : undefined].filter(
      (file) => file !== undefined,
    ),
  );
}

async function readText(
  file: string | undefined,
  path: string,
  problems: ConfigProblem[],
): Promise<string | undefined> {
  if (file === undefined) return undefined;
  const [event] = (await createFileSet({ paths: [file], maxBytes: maxFileBytes }).look()) ?? [];
  if (event?.kind === 'content') return event.bytes.toString('utf8');
  problems.push({ path, message: problemOf(event, file) });
  return undefined;
}

function problemOf(event: FileEvent | undefined, file: string): string {
  if (event?.kind === 'unreadable') return event.message;
  return event === undefined ? `${file} changes while it is read` : `there is no file ${file}`;
}

function attempt(problems: ConfigProblem[], path: string, check: () => void): void {
  try {
    check();
  } catch (error) {
    problems.push({ path, message: messageOf(error) });
  }
}
