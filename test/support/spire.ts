import { webcrypto } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import type { TestContext } from 'node:test';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../src/spiffe/certificate.ts';
import { findExecutable, pathDirectories } from '../../src/stack/executables.ts';
import { createTestAuthority } from './ca.ts';
import { freePort } from './ports.ts';
import { tempDirectory, until } from './process.ts';
import { spireInContainers } from './spire-containers.ts';
import { spireFromPath } from './spire-processes.ts';

/** The version whose images are run; any version may be on PATH. */
const version = '1.15.3';

const missing = `needs SPIRE, which has no package of its own: put spire-server and spire-agent ${version} (the release archive) on PATH, or have a container runtime answer on Linux`;

export type SpireEntry = Readonly<{ spiffeId: string; x509TtlS: number; federatesWith?: readonly string[] }>;

/** A real SPIRE server with one agent, whose entries are for every process of this user. */
export interface Spire {
  /** The agent's Workload API: `unix:///…` */
  readonly workloadApi: string;
  readonly socket: string;
  /** Where the server answers agents, with TLS. */
  readonly serverPort: number;
  /** One `spire-server` command against this server. */
  server(...args: readonly string[]): Promise<string>;
  /** One `spire-agent` command against this agent, as a workload. */
  agent(...args: readonly string[]): Promise<string>;
  /** Registers an identity of this user's processes and gives the entry's ID. */
  createEntry(entry: SpireEntry): Promise<string>;
  deleteEntry(id: string): Promise<void>;
  /** Ends the agent and starts it again: the same node and socket path, and a new socket. */
  restartAgent(): Promise<void>;
}

export type SpireOptions = Readonly<{
  trustDomain: string;
  /** True for a server that issues from intermediates below one root, which alone is in the bundle. */
  upstream?: boolean;
}>;

/**
 * Starts a SPIRE server and an agent attested by a join token; they are stopped after the test. Where there is no SPIRE
 * it skips the test, with what to install, and gives undefined.
 */
export async function startSpire(
  t: TestContext,
  { trustDomain, upstream = false }: SpireOptions,
): Promise<Spire | undefined> {
  const host = (await spireFromPath(pathTo)) ?? (await spireInContainers(version));
  if (host === undefined) {
    t.skip(missing);
    return undefined;
  }
  const directory = await tempDirectory(t);
  const [adminSocket, socket] = [join(directory, 'server.sock'), join(directory, 'public/agent.sock')];
  await mkdir(join(directory, 'data'));
  const serverPort = await freePort();
  const at = { directory, adminSocket, socket, serverPort, trustDomain };
  const [serverConfig, agentConfig] = [join(directory, 'server.conf'), join(directory, 'agent.conf')];
  const root = upstream ? await writeRoot(directory, trustDomain) : '';
  await writeFile(serverConfig, serverConfigOf(at, root));
  await writeFile(agentConfig, agentConfigOf(at));

  const serverProgram = await host.start(t, {
    program: 'spire-server',
    args: ['run', '-config', serverConfig],
    directory,
  });
  const server = (...args: readonly string[]): Promise<string> =>
    serverProgram.command(...args, '-socketPath', adminSocket);
  await until('spire-server to be healthy', () => server('healthcheck'));

  await writeFile(join(directory, 'bundle.pem'), await server('bundle', 'show'));
  const node = `spiffe://${trustDomain}/node`;
  const token = JSON.parse(await server('token', 'generate', '-spiffeID', node, '-output', 'json')) as {
    value: string;
  };
  const agentArgs = ['run', '-config', agentConfig, '-joinToken', token.value];
  const agentProgram = await host.start(t, { program: 'spire-agent', args: agentArgs, directory });
  const agent = (...args: readonly string[]): Promise<string> =>
    agentProgram.command(...args, '-socketPath', socket);
  const agentIsHealthy = (): Promise<string> =>
    until('spire-agent to be healthy', () => agent('healthcheck'));
  await agentIsHealthy();

  return {
    workloadApi: `unix://${socket}`,
    socket,
    serverPort,
    server,
    agent,
    async createEntry({ spiffeId, x509TtlS, federatesWith = [] }) {
      const selector = `unix:uid:${process.getuid?.()}`;
      const whose = ['-parentID', node, '-selector', selector];
      const what = ['-spiffeID', spiffeId, '-x509SVIDTTL', String(x509TtlS)];
      const foreign = federatesWith.flatMap((id) => ['-federatesWith', id]);
      const created = await server('entry', 'create', ...whose, ...what, ...foreign, '-output', 'json');
      const { results } = JSON.parse(created) as { results: readonly { entry?: { id: string } }[] };
      const id = results[0]?.entry?.id;
      if (id === undefined) throw new Error(`spire-server created no entry: ${created}`);
      return id;
    },
    async deleteEntry(id) {
      await server('entry', 'delete', '-entryID', id);
    },
    async restartAgent() {
      await agentProgram.restart();
      await agentIsHealthy();
    },
  };
}

function pathTo(name: string): Promise<string | undefined> {
  return findExecutable(name, pathDirectories(process.env.PATH));
}

type Places = Readonly<{
  directory: string;
  adminSocket: string;
  socket: string;
  serverPort: number;
  trustDomain: string;
}>;

// Entries reach the agent within two seconds instead of ten, so that a test need not wait for SPIRE's own pace.
function serverConfigOf(
  { directory, adminSocket, serverPort, trustDomain }: Places,
  upstreamAuthority: string,
): string {
  return `server {
  bind_address = "127.0.0.1"
  bind_port = "${serverPort}"
  socket_path = "${adminSocket}"
  trust_domain = "${trustDomain}"
  data_dir = "${directory}/data"
  experimental { cache_reload_interval = "1s" }
}
plugins {
  DataStore "sql" {
    plugin_data { database_type = "sqlite3" connection_string = "${directory}/data/server.sqlite3" }
  }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  ${upstreamAuthority}
}
`;
}

/** A root for the server to stand below, and the plugin that hands it over. */
async function writeRoot(directory: string, trustDomain: string): Promise<string> {
  const hourMs = 3_600_000;
  const now = Date.now();
  const root = await createTestAuthority(trustDomain, { notBefore: now - hourMs, notAfter: now + hourMs });
  const [certificate, key] = [join(directory, 'root.pem'), join(directory, 'root.key')];
  await writeFile(certificate, encodeCertificatesPem([root.certificate]));
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', root.keys.privateKey);
  await writeFile(key, encodePrivateKeyPem(Buffer.from(pkcs8)), { mode: 0o600 });
  return `UpstreamAuthority "disk" { plugin_data { cert_file_path = "${certificate}" key_file_path = "${key}" } }`;
}

function agentConfigOf({ directory, socket, serverPort, trustDomain }: Places): string {
  return `agent {
  server_address = "127.0.0.1"
  server_port = "${serverPort}"
  socket_path = "${socket}"
  trust_domain = "${trustDomain}"
  trust_bundle_path = "${directory}/bundle.pem"
  data_dir = "${directory}/data"
  experimental { sync_interval = "1s" }
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "${directory}/data" } }
  WorkloadAttestor "unix" { plugin_data {} }
}
`;
}
