import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../config/config.ts';
import { loadConfig } from '../config/load.ts';
import { formatBootstrap } from '../envoy/bootstrap.ts';
import type { Child } from './child.ts';
import { clientBootstrap, type EnvoyPlace, serverBootstrap } from './demo-envoys.ts';
import { envoyService } from './envoy-process.ts';
import { opaService } from './opa-process.ts';
import { sidecarService } from './sidecar-process.ts';
import type { Stack } from './supervisor.ts';

/** What all parts of the demo are started with. */
export type DemoGround = Readonly<{
  stack: Stack;
  directory: string;
  program: readonly [string, ...string[]];
  envoy: string;
  opa: string;
  /** Gives one more free port. */
  nextPort: () => number;
  /** Where the requests end up that are let through. */
  upstreamPort: number;
}>;

export type CellOptions = Readonly<{
  trustDomain: string;
  /** wasm: the bundle runs inside the sidecar. opa: a real OPA runs beside, with these files. */
  policy: Readonly<{ engine: 'wasm'; bundle: string } | { engine: 'opa'; files: readonly string[] }>;
  svidTtlSeconds: number;
}>;

/** One trust domain of the demo: a sidecar with its embedded CA, a server Envoy and a client Envoy. */
export type Cell = Readonly<{
  trustDomain: string;
  config: Config;
  sidecar: Child;
  server: EnvoyPlace;
  /** Its requests are allowed by policy. */
  client: EnvoyPlace;
}>;

/** The SPIFFE IDs of a trust domain of the demo. */
export function identitiesOf(trustDomain: string): Readonly<Record<'server' | 'client' | 'denied', string>> {
  const id = (name: string): string => `spiffe://${trustDomain}/service/${name}`;
  return { server: id('server'), client: id('web'), denied: id('batch') };
}

/** Starts the sidecar of a trust domain, and its OPA when it has one; resolves when both are ready. */
export async function startSidecar(ground: DemoGround, options: CellOptions): Promise<Cell> {
  const { stack, directory, program, nextPort } = ground;
  const { trustDomain, policy, svidTtlSeconds } = options;
  const ids = identitiesOf(trustDomain);
  const home = join(directory, trustDomain);
  await mkdir(home, { mode: 0o700 });

  const opaPort = nextPort();
  if (policy.engine === 'opa') {
    const name = `opa of ${trustDomain}`;
    await stack.start(opaService({ name, binary: ground.opa, port: opaPort, files: policy.files }));
  }
  const adminPort = nextPort();
  const text = JSON.stringify(
    {
      identity: {
        source: 'dev',
        dev: {
          trust_domain: trustDomain,
          spiffe_ids: Object.values(ids),
          svid_ttl: `${svidTtlSeconds}s`,
          serve_workload_api: `unix://${join(home, 'workload.sock')}`,
        },
      },
      trust_domain: trustDomain,
      listen: `unix://${join(home, 'svidecar.sock')}`,
      ext_authz: { peer: { verify_certificate: 'required' } },
      policy:
        policy.engine === 'opa'
          ? { engine: 'opa', timeout: '1s', opa: { url: `http://127.0.0.1:${opaPort}` } }
          : { engine: 'wasm', timeout: '1s', bundle: { file: policy.bundle } },
      admin: { listen: `127.0.0.1:${adminPort}` },
    },
    undefined,
    2,
  );
  const configFile = join(home, 'svidecar.yaml');
  await writeFile(configFile, text);
  const { config } = loadConfig({ text, path: configFile, env: {} });
  const name = `sidecar of ${trustDomain}`;
  const sidecar = await stack.start(sidecarService({ name, program, configFile, adminPort }));
  const place = (spiffeId: string): EnvoyPlace => ({ port: nextPort(), adminPort: nextPort(), spiffeId });
  return { trustDomain, config, sidecar, server: place(ids.server), client: place(ids.client) };
}

/** Starts the pair of Envoys of a trust domain. */
export async function startPair(ground: DemoGround, cell: Cell): Promise<void> {
  const { config, server, client, trustDomain } = cell;
  const serverSide = serverBootstrap(config, server, ground.upstreamPort);
  await Promise.all([
    startEnvoy(ground, `server envoy of ${trustDomain}`, server, serverSide),
    startEnvoy(ground, `client envoy of ${trustDomain}`, client, clientBootstrap(config, client, server)),
  ]);
}

/** Starts one Envoy; resolves when its listener and its secrets are in place. */
export async function startEnvoy(
  ground: DemoGround,
  name: string,
  place: EnvoyPlace,
  bootstrap: Readonly<Record<string, unknown>>,
): Promise<Child> {
  const configFile = join(ground.directory, `${name.replaceAll(' ', '-')}.yaml`);
  await writeFile(configFile, formatBootstrap(bootstrap));
  return ground.stack.start(
    envoyService({ name, binary: ground.envoy, configFile, adminPort: place.adminPort }),
  );
}
