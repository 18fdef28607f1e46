import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { envoyAdmin, envoyService, envoyStats } from '../../src/stack/envoy-process.ts';
import { envoyPath } from './binaries.ts';
import { bootstrapOf, type EnvoyConfig, type Json } from './envoy-config.ts';
import { freePort } from './ports.ts';
import { startProcess, type TestProcess, tempDirectory, until } from './process.ts';

/** The name of a stat of one SDS secret: Envoy writes `_` for `://`. */
export function sdsStat(secret: string, stat: string): string {
  return `sds.${secret.replaceAll('://', '_')}.${stat}`;
}

/** A certificate as Envoy's admin interface tells of it. */
export type EnvoyCertificate = Readonly<{
  serial_number: string;
  subject_alt_names?: readonly Readonly<{ uri?: string }>[];
}>;

/** A real Envoy. */
export interface Envoy {
  readonly adminPort: number;
  /** The process that runs now: another one after `restart`. */
  process(): TestProcess;
  /** The value of one counter or gauge; one that Envoy does not have is an error, so that a misspelt name is never 0. */
  stat(name: string): Promise<number>;
  /** Polls until a counter or gauge is there and passes `test`. */
  waitForStat(name: string, test: (value: number) => boolean): Promise<number>;
  /** The certificates in use, own ones only. */
  certificates(): Promise<readonly EnvoyCertificate[]>;
  admin(path: string): Promise<string>;
  /** Starts it again with the same bootstrap, after a stop or a crash; resolves when ready. */
  restart(): Promise<void>;
  /** Starts the next epoch beside this one, which drains and ends; resolves with the old process when the new one is ready. */
  hotRestart(): Promise<TestProcess>;
}

export type EnvoyOptions = Readonly<{
  config: EnvoyConfig;
  node?: Json;
  name?: string;
  logLevel?: 'error' | 'warning' | 'info' | 'debug';
  /** False for an Envoy whose listeners wait for a secret that is still to come. */
  waitForReady?: boolean;
  /** True for one that a next epoch may take over from, as Envoy's hot restart has it. */
  restartsHot?: boolean;
}>;

const never = new AbortController().signal;
/** The old epoch of a hot restart has this long, instead of a quarter of an hour. */
const drainSoon = ['--drain-time-s', '1', '--parent-shutdown-time-s', '2'];

/** Starts a real Envoy that is stopped after the test; resolves when its listeners and secrets are in place. */
export async function startEnvoy(t: TestContext, options: EnvoyOptions): Promise<Envoy> {
  const { config, node, name = 'envoy', logLevel, waitForReady = true, restartsHot = false } = options;
  const directory = await tempDirectory(t);
  const adminPort = await freePort();
  const configFile = join(directory, 'envoy.json');
  await writeFile(configFile, JSON.stringify(bootstrapOf(config, adminPort, node)));
  const { ready, ...spec } = envoyService({
    name,
    binary: await envoyPath(),
    configFile,
    adminPort,
    ...(logLevel === undefined ? {} : { logLevel }),
  });

  const baseId = String(await freePort());
  const argsOf = (epoch: number): readonly string[] =>
    spec.args.flatMap((arg) =>
      arg === '--disable-hot-restart' && restartsHot
        ? ['--base-id', baseId, '--restart-epoch', String(epoch), ...drainSoon]
        : [arg],
    );
  let epoch = 0;

  const start = async (): Promise<TestProcess> => {
    const started = await startProcess(t, { ...spec, args: argsOf(epoch) });
    if (waitForReady) {
      await until(`${name} to be ready`, async () => {
        if (started.exited() !== undefined) return 'gone';
        return (await ready(never)) || undefined;
      });
    }
    if (started.exited() !== undefined)
      throw new Error(`${name} ended:\n${started.recentLines().join('\n')}`);
    return started;
  };

  const stat = async (wanted: string): Promise<number> => {
    const exact = new RegExp(`^${wanted.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)}$`);
    const value = (await envoyStats(adminPort, exact, never)).get(wanted);
    if (value === undefined) throw new Error(`${name} has no stat ${wanted}`);
    return value;
  };

  let process = await start();
  return {
    adminPort,
    process: () => process,
    stat,
    waitForStat: (wanted, test) =>
      until(`${name}'s ${wanted}`, async () => {
        const value = await stat(wanted);
        return test(value) ? value : undefined;
      }),
    async certificates() {
      const text = await envoyAdmin(adminPort, '/certs', never);
      const { certificates } = JSON.parse(text) as {
        certificates: readonly { cert_chain?: readonly EnvoyCertificate[] }[];
      };
      return certificates.flatMap((entry) => entry.cert_chain?.slice(0, 1) ?? []);
    },
    admin: (path) => envoyAdmin(adminPort, path, never),
    async restart() {
      process = await start();
    },
    async hotRestart() {
      const old = process;
      epoch += 1;
      process = await start();
      return old;
    },
  };
}
