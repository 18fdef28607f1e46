import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sleep } from '../runtime/abort.ts';
import { AppError, messageOf } from '../runtime/errors.ts';
import {
  type Cell,
  type DemoGround,
  identitiesOf,
  startEnvoy,
  startPair,
  startSidecar,
} from './demo-cell.ts';
import { clientBootstrap, type EnvoyPlace, strangerBootstrap } from './demo-envoys.ts';
import { envoyAdmin, envoyStats } from './envoy-process.ts';
import { type LoopbackAnswer, loopbackHttp } from './loopback-http.ts';
import { poll } from './poll.ts';
import { probeTls } from './tls-probe.ts';
import { runTraffic } from './traffic.ts';

export type ScenesOptions = Readonly<{
  ground: DemoGround;
  /** The directory of the example policy: authz.rego, data.json and the bundle built from them. */
  policy: string;
  tell: (line: string) => void;
  sleep: Sleep;
}>;

const SVID_TTL_SECONDS = 16;
const HOME = 'dev.local';
const PARTNER = 'partner.local';

/**
 * Plays the demo, one line a scene. Gives lines on how to go on by hand, or undefined when a scene did not do what its
 * line says; that line then tells why, and it is the last.
 */
export async function runScenes(
  options: ScenesOptions,
  signal: AbortSignal,
): Promise<readonly string[] | undefined> {
  const { ground, policy, tell, sleep } = options;
  const started: Cell[] = [];

  const scenes = async function* (): AsyncGenerator<string> {
    const partnerData = join(ground.directory, 'data.json');
    await writeFile(partnerData, JSON.stringify(partnerRules()));
    const [home, partner] = await Promise.all([
      startSidecar(ground, {
        trustDomain: HOME,
        policy: { engine: 'wasm', bundle: join(policy, 'bundle.tar.gz') },
        svidTtlSeconds: SVID_TTL_SECONDS,
      }),
      startSidecar(ground, {
        trustDomain: PARTNER,
        policy: { engine: 'opa', files: [join(policy, 'authz.rego'), partnerData] },
        svidTtlSeconds: SVID_TTL_SECONDS,
      }),
    ]);
    const cells = [home, partner];
    started.push(...cells);
    yield `two sidecars are up, each with an embedded CA: ${HOME} decides by a wasm bundle, ${PARTNER} asks a real OPA`;

    await Promise.all(cells.map((cell) => startPair(ground, cell)));
    for (const place of cells.flatMap(({ server, client }) => [server, client])) {
      await secretsArrived(place, signal);
    }
    yield 'SDS gave four real Envoys their SVID and trust bundle, the servers by delta and the clients by state of the world';

    for (const cell of cells) {
      demand(
        (await call(cell.client, signal)).status === 200,
        `the allowed peer of ${cell.trustDomain} is kept out`,
      );
      await onlyTls13(cell.server, signal);
    }
    yield 'in both, the client Envoy reaches the service through the server Envoy: mutual TLS 1.3, allowed by policy, 200';

    yield await deniedPeer(ground, home, signal, sleep);
    yield await withoutCertificate(home, signal);
    yield await stranger(ground, home, partner, signal);
    yield await rotation(cells, signal, sleep);
  };

  try {
    for await (const line of scenes()) tell(`ok    ${line}`);
    return started.flatMap(({ trustDomain, client, config }) => [
      `try   curl http://127.0.0.1:${client.port}/hello   # ${trustDomain}`,
      `try   curl http://127.0.0.1:${config.admin.listen.port}/status   # its sidecar`,
    ]);
  } catch (error) {
    if (signal.aborted) throw error;
    tell(`FAIL  ${messageOf(error)}`);
    for (const { sidecar } of started) {
      for (const line of sidecar.recentLines().slice(-5)) tell(`      ${sidecar.name}: ${line}`);
    }
    return undefined;
  }
}

function partnerRules(): unknown {
  return { rules: [{ peers: [identitiesOf(PARTNER).client], methods: ['GET'], paths: ['/hello'] }] };
}

function demand(truth: boolean, otherwise: string): void {
  if (!truth) throw new AppError('internal', otherwise);
}

function call(client: EnvoyPlace, signal: AbortSignal): Promise<LoopbackAnswer> {
  return loopbackHttp({ port: client.port, path: '/hello' }, signal);
}

async function secretsArrived({ adminPort, spiffeId }: EnvoyPlace, signal: AbortSignal): Promise<void> {
  const stats = await envoyStats(adminPort, /^sds\..*\.update_(success|rejected)$/, signal);
  const sum = (end: string): number =>
    [...stats].reduce((total, [name, value]) => (name.endsWith(end) ? total + value : total), 0);
  demand(sum('.update_success') >= 2, `the Envoy of ${spiffeId} has not got its two secrets`);
  demand(sum('.update_rejected') === 0, `the Envoy of ${spiffeId} rejected a secret`);
  const certificates = await envoyAdmin(adminPort, '/certs', signal);
  demand(certificates.includes(`"${spiffeId}"`), `the Envoy of ${spiffeId} has another certificate`);
}

async function onlyTls13({ adminPort, spiffeId }: EnvoyPlace, signal: AbortSignal): Promise<void> {
  const stats = await envoyStats(adminPort, /^listener\..*\.ssl\.versions\./, signal);
  const versions = [...stats]
    .filter(([, count]) => count > 0)
    .map(([name]) => name.replace(/^.*\.versions\./, ''));
  demand(
    versions.join() === 'TLSv1.3',
    `${spiffeId} was spoken to in ${versions.join(', ') || 'no TLS at all'}`,
  );
}

async function deniedPeer(
  ground: DemoGround,
  cell: Cell,
  signal: AbortSignal,
  sleep: Sleep,
): Promise<string> {
  const place = newPlace(ground, identitiesOf(cell.trustDomain).denied);
  const bootstrap = clientBootstrap(cell.config, place, cell.server);
  await startEnvoy(ground, `denied envoy of ${cell.trustDomain}`, place, bootstrap);
  const mark = cell.sidecar.lineCount();
  const { status } = await call(place, signal);
  demand(status === 403, `the peer that policy denies got ${status}`);
  const reason = await poll(
    { what: 'the denial in the decision log', timeoutMs: 5000, sleep },
    signal,
    async () =>
      cell.sidecar
        .linesSince(mark)
        .map(denialOf)
        .find((text) => text !== undefined),
  );
  return `${place.spiffeId} has a good SVID, and policy denies it: 403, and the decision log says "${reason}"`;
}

/** The reason in a line of the decision log, when it is a denial by policy. */
function denialOf(line: string): string | undefined {
  try {
    const event = JSON.parse(line) as Readonly<Record<string, unknown>>;
    return event.reason_code === 'policy_denied' && typeof event.reason === 'string'
      ? event.reason
      : undefined;
  } catch {
    return undefined;
  }
}

async function withoutCertificate({ server }: Cell, signal: AbortSignal): Promise<string> {
  const before = await refusedHandshakes(server, signal);
  const probe = await probeTls({ port: server.port });
  demand(probe.uri === server.spiffeId, `the server shows ${probe.uri ?? 'no certificate'}`);
  demand(probe.status === undefined, `a client without a certificate got status ${probe.status ?? 0}`);
  demand((await refusedHandshakes(server, signal)) > before, 'the server Envoy counts no refused handshake');
  return 'a client without a certificate fails the handshake';
}

async function stranger(ground: DemoGround, home: Cell, foreign: Cell, signal: AbortSignal): Promise<string> {
  const place = newPlace(ground, foreign.client.spiffeId);
  const bootstrap = strangerBootstrap(foreign.config, place, home.server);
  await startEnvoy(ground, `stranger envoy of ${foreign.trustDomain}`, place, bootstrap);
  const before = await refusedHandshakes(home.server, signal);
  const { status } = await call(place, signal);
  demand(status === 503, `a client of a trust domain that is not trusted got status ${status}`);
  demand(
    (await refusedHandshakes(home.server, signal)) > before,
    'the server Envoy counts no refused handshake',
  );
  return `${place.spiffeId}, of a trust domain that ${home.trustDomain} does not trust, fails the handshake`;
}

async function rotation(cells: readonly Cell[], signal: AbortSignal, sleep: Sleep): Promise<string> {
  const stop = new AbortController();
  const traffic = cells.map(({ client }) =>
    runTraffic(
      {
        request: { port: client.port, path: '/hello' },
        loops: 2,
        pauseMs: 10,
        requestsPerConnection: 10,
        maxRequests: 10_000,
        sleep,
      },
      AbortSignal.any([signal, stop.signal]),
    ),
  );
  let changes: readonly string[];
  try {
    changes = await Promise.all(cells.map((cell) => newSerial(cell, signal, sleep)));
    // The first requests over connections made under the new certificates belong to the proof.
    await sleep(1000, signal);
  } finally {
    stop.abort();
  }
  const reports = await Promise.all(traffic);
  const failures = reports.flatMap((report) => report.failures);
  const sent = reports.reduce((total, report) => total + report.sent, 0);
  demand(
    failures.length === 0,
    `${failures.length} of ${sent} requests failed in a rotation: ${failures[0]}`,
  );
  demand(sent >= 100, `only ${sent} requests were sent during the rotation`);
  return `certificates rotated under ${sent} requests, none failed; new serials on the wire: ${changes.join(', ')}`;
}

/** Waits until a client that connects anew sees another certificate, and the peer's Envoy has a new one too. */
async function newSerial(cell: Cell, signal: AbortSignal, sleep: Sleep): Promise<string> {
  const { server, client } = cell;
  const clientsBefore = await envoyAdmin(client.adminPort, '/certs', signal).then(serials);
  const before = (await probeTls({ port: server.port })).serial;
  const options = {
    what: `new certificates in ${cell.trustDomain}`,
    timeoutMs: 30_000,
    intervalMs: 200,
    sleep,
  };
  return poll(options, signal, async () => {
    const { serial } = await probeTls({ port: server.port });
    const clients = await envoyAdmin(client.adminPort, '/certs', signal).then(serials);
    const isNew = serial !== undefined && serial !== before && clients !== clientsBefore;
    return isNew ? `${short(before)} → ${short(serial)}` : undefined;
  });
}

function serials(certs: string): string {
  return [...certs.matchAll(/"serial_number": "(?<serial>[^"]*)"/g)]
    .map(({ groups }) => groups?.serial)
    .join();
}

function short(serial: string | undefined): string {
  return (serial ?? '').slice(0, 8).toLowerCase();
}

async function refusedHandshakes({ adminPort }: EnvoyPlace, signal: AbortSignal): Promise<number> {
  const stats = await envoyStats(adminPort, /^listener\..*\.ssl\.fail_verify_/, signal);
  return [...stats.values()].reduce((total, count) => total + count, 0);
}

function newPlace({ nextPort }: DemoGround, spiffeId: string): EnvoyPlace {
  return { port: nextPort(), adminPort: nextPort(), spiffeId };
}
