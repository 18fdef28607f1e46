import { readFile } from 'node:fs/promises';
import type { Config } from '../config/config.ts';
import {
  type DeniedLines,
  type DeniedState,
  keepDenied,
  noDenied,
  parseDeniedLines,
  settleDenied,
  takeDenied,
} from '../extauthz/denied-file.ts';
import { compileIdentityList, type IdentityRules } from '../extauthz/identity-rules.ts';
import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, ConfigError, messageOf } from '../runtime/errors.ts';
import { watchFile } from '../runtime/file-watch.ts';
import type { Latest } from '../runtime/latest.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import type { IdPattern } from '../spiffe/match.ts';

/** What is counted of the denied identities. */
export interface DeniedMeter {
  /** So many patterns are in force, from configuration and file together. */
  deniedIdentities(count: number): void;
}

const pollMs = 250;
const maxFileBytes = 16 * 1024 * 1024;
/** A file that is no list at all has millions of bad lines. */
const maxToldLines = 20;

/** The identity rules of one configuration, with the patterns of its denied-identities file. */
export function identityRulesOf(
  { extAuthz: { peer }, federation }: Config,
  deniedInFile: Iterable<IdPattern>,
): IdentityRules {
  return Object.freeze({
    requirePeer: peer.require,
    denied: compileIdentityList([...peer.deniedIdentities, ...deniedInFile]),
    allowed: peer.allowedIdentities === undefined ? undefined : compileIdentityList(peer.allowedIdentities),
    federated: new Map(
      federation.trustDomains.map(({ trustDomain, allowedIdentities }) => [
        trustDomain,
        compileIdentityList(allowedIdentities),
      ]),
    ),
  });
}

/** What the denied-identities file says now; a file that cannot be read is a ConfigError, because nobody would be denied. */
export async function readDenied({ extAuthz: { peer } }: Config): Promise<DeniedLines> {
  const path = peer.deniedIdentitiesFile;
  if (path === undefined) return { patterns: [], problems: [] };
  try {
    return parseDeniedLines(await readFile(path, 'utf8'));
  } catch (error) {
    const message = `cannot be read, so nobody in it would be denied: ${messageOf(error)}`;
    throw new ConfigError([{ path: 'ext_authz.peer.denied_identities_file', message }]);
  }
}

/** The rules that are in force, always; they follow the configuration and the denied-identities file. */
export async function createIdentityRules(options: {
  configs: Latest<Config>;
  now: () => number;
  sleep: Sleep;
  log: Logger;
  meter: DeniedMeter;
}): Promise<Readonly<{ rules(): IdentityRules; tasks: readonly Task[] }>> {
  const { configs, now, sleep, log, meter } = options;
  // Before the first Check: nobody slips through while the file is being read.
  let denied = takeDenied(noDenied, (await readDenied(configs.current())).patterns, now());
  let rules = identityRulesOf(configs.current(), denied.inForce.values());

  function rebuild(): void {
    rules = identityRulesOf(configs.current(), denied.inForce.values());
    meter.deniedIdentities(configs.current().extAuthz.peer.deniedIdentities.length + denied.inForce.size);
  }

  function set(next: DeniedState): void {
    if (next === denied) return;
    const changed = next.inForce !== denied.inForce;
    denied = next;
    if (changed) rebuild();
  }

  async function follow(path: string, signal: AbortSignal): Promise<void> {
    for await (const event of watchFile({ path, pollMs, maxBytes: maxFileBytes, sleep }, signal)) {
      if (event.kind !== 'content') {
        const reason = event.kind === 'missing' ? 'the file is gone' : event.message;
        log.error({ path, reason }, 'denied identities cannot be read; those in force stay');
        set(keepDenied(denied));
        continue;
      }
      const { patterns, problems } = parseDeniedLines(event.bytes.toString('utf8'));
      for (const { line, message } of problems.slice(0, maxToldLines))
        log.error({ path, line, error: message }, 'bad denied identity');
      if (problems.length > maxToldLines)
        log.error({ path, lines: problems.length }, 'bad denied identities');
      set(takeDenied(denied, patterns, now()));
      log.info({ path, patterns: patterns.length }, 'denied identities read');
    }
  }

  const followConfig: Task = async (signal) => {
    let path: string | undefined;
    let watching = new AbortController();
    let running = Promise.resolve();
    for await (const config of configs.changes(signal)) {
      const next = config.extAuthz.peer.deniedIdentitiesFile;
      if (next !== path) {
        watching.abort();
        await running;
        watching = new AbortController();
        path = next;
        if (next === undefined) set(noDenied);
        else running = follow(next, AbortSignal.any([signal, watching.signal]));
      }
      rebuild();
    }
    await running;
  };
  const settle: Task = async (signal) => {
    try {
      for (;;) {
        await sleep(pollMs, signal);
        set(settleDenied(denied, now()));
      }
    } catch (error) {
      if (!(error instanceof AbortedError)) throw error;
    }
  };
  return { rules: () => rules, tasks: [followConfig, settle] };
}
