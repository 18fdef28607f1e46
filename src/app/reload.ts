import { changedKeys } from '../config/changed-keys.ts';
import type { Config } from '../config/config.ts';
import type { LoadedConfig } from '../config/load.ts';
import { encodeOptions } from '../config/schema.ts';
import type { Sleep } from '../runtime/abort.ts';
import { ConfigError, messageOf } from '../runtime/errors.ts';
import { createFileSet, type FileSet } from '../runtime/file-watch.ts';
import { createLatest, type Latest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';

/** Where a configuration comes from a second time. */
export type ConfigSource = Readonly<{
  /** The file that is watched. */
  path: string;
  /** Reads and checks it again; throws ConfigError. */
  read(): Promise<LoadedConfig>;
  /** Yields once at first, then whenever the operator asks for a reload (SIGHUP). */
  requests(signal: AbortSignal): AsyncIterable<unknown>;
}>;

/** What is counted of reloads. */
export interface ReloadMeter {
  configRead(outcome: 'applied' | 'unchanged' | 'refused'): void;
}

const pollMs = 500;
/** What is empty or cut short is valid YAML, in which nobody is denied. */
const quietLooks = 2;
/** While a configuration is refused it is read again every five seconds: a file that it names may have come. */
const looksUntilRetry = 8;
const maxFileBytes = 16 * 1024 * 1024;

/** What takes effect without a restart; everything else that changed is named in the log. */
const reloadable: readonly string[] = [
  'ext_authz.peer.allowed_identities',
  'ext_authz.peer.denied_identities',
  'ext_authz.peer.denied_identities_file',
  'federation.trust_domains',
];

/**
 * Follows the configuration's source: `configs` holds the configuration at start with the reloadable parts of the newest
 * good file. A file that is not right changes nothing; its problems are logged, and it is read again until it is right.
 */
export function createReload(options: {
  initial: LoadedConfig;
  source: ConfigSource;
  sleep: Sleep;
  log: Logger;
  meter: ReloadMeter;
}): { configs: Latest<Config>; tasks: readonly Task[] } {
  const { initial, source, sleep, log, meter } = options;
  const configs = createLatest(initial.config);
  let held: unknown = encodeOptions(initial.options);

  let refused: string | undefined;

  /** A file that is read `again`, unchanged, is only told of when its problems are others. */
  async function reload(again: boolean): Promise<void> {
    let loaded: LoadedConfig;
    try {
      loaded = await source.read();
    } catch (error) {
      const problems =
        error instanceof ConfigError ? error.problems : [{ path: '', message: messageOf(error) }];
      const before = refused;
      refused = JSON.stringify(problems);
      if (again && refused === before) return;
      meter.configRead('refused');
      log.error({ path: source.path, problems }, 'new configuration refused; the old one stays');
      return;
    }
    const wasRefused = refused !== undefined;
    refused = undefined;
    const next = encodeOptions(loaded.options);
    const changed = changedKeys(held, next);
    if (changed.length === 0) {
      if (wasRefused)
        log.info({ path: source.path }, 'configuration is right again, and as the one in force');
      meter.configRead('unchanged');
      return;
    }
    held = next;
    const applied = changed.filter(isReloadable);
    const ignored = changed.filter((key) => !isReloadable(key));
    if (applied.length > 0) configs.set(withReloaded(initial.config, loaded.config));
    meter.configRead(applied.length > 0 ? 'applied' : 'unchanged');
    if (applied.length > 0) log.info({ keys: applied }, 'configuration changed');
    if (ignored.length > 0) log.warn({ keys: ignored }, 'these changes need a restart to take effect');
  }

  let last = Promise.resolve();
  const inTurn = (again = false): Promise<void> => (last = last.then(() => reload(again)));
  const watched = (): FileSet => createFileSet({ paths: [source.path], maxBytes: maxFileBytes, quietLooks });
  return {
    configs,
    tasks: [
      async (signal) => {
        let first = true;
        for await (const _ of source.requests(signal)) {
          if (!first) await inTurn();
          first = false;
        }
      },
      async (signal) => {
        let file = watched();
        let bytes: Buffer | undefined;
        let looks = 0;
        while (!signal.aborted) {
          const [event] = (await file.look()) ?? [];
          looks += 1;
          if (event?.kind === 'content') {
            const again = bytes?.equals(event.bytes) ?? false;
            ({ bytes } = event);
            // The first time too: the file may have changed since the program read it.
            await inTurn(again);
            looks = 0;
          } else if (event !== undefined) {
            refused = undefined;
            log.warn({ path: source.path }, 'configuration file cannot be read; the old one stays');
          } else if (refused !== undefined && looks >= looksUntilRetry) {
            // One that has seen nothing gives the file anew, when it is quiet.
            file = watched();
            looks = 0;
          }
          await sleep(pollMs, signal);
        }
      },
    ],
  };
}

function isReloadable(key: string): boolean {
  return reloadable.some((prefix) => key === prefix || key.startsWith(`${prefix}.`));
}

function withReloaded(initial: Config, next: Config): Config {
  const { allowedIdentities, deniedIdentities, deniedIdentitiesFile } = next.extAuthz.peer;
  const peer = { ...initial.extAuthz.peer, allowedIdentities, deniedIdentities, deniedIdentitiesFile };
  const { trustDomains } = next.federation;
  return Object.freeze({
    ...initial,
    extAuthz: Object.freeze({ ...initial.extAuthz, peer: Object.freeze(peer) }),
    federation: Object.freeze({ ...initial.federation, trustDomains }),
  });
}
