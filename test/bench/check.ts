// Checks against the sidecar (wasm), opa-envoy-plugin where it is on PATH, a server of grpc-go and OPA's evaluator alone,
// all three with the same policy, and a grpc-js server whose handler does nothing. Child processes behind unix sockets,
// called in turn by this process with the same bytes; medians of paired rounds. Only the first sidecar verifies the
// certificate of the peer, which the others cannot. Options: --rounds N (5), --in-flight 1,16,64,256, --decision-log,
// --against FILE: one more sidecar, from the dist/main.js of another checkout; the same requests need the same authority,
// so this one verifies nothing either.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { messageCodec } from '../../src/grpc/protos.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { encodeCertificatesPem } from '../../src/spiffe/certificate.ts';
import { createWorkloadApiSource } from '../../src/workload/workload-api.ts';
import { type Figures, measureUnary, median } from './load.ts';
import {
  buildBundle,
  cpuSeconds,
  ownMain,
  type Server,
  startGoAuthz,
  startNoop,
  startPlugin,
  startSidecar,
} from './servers.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    'in-flight': { type: 'string', default: '1,16,64,256' },
    'decision-log': { type: 'boolean', default: false },
    against: { type: 'string' },
  },
});
const rounds = Number(values.rounds);
const method = '/envoy.service.auth.v3.Authorization/Check';

type Run = Figures & Readonly<{ cpuUs: number }>;

const directory = mkdtempSync(path.join(tmpdir(), 'svidecar-bench-'));
const servers: Server[] = [];

try {
  const bundle = await buildBundle(directory);
  const common = { main: ownMain, directory, bundle, decisionLog: values['decision-log'] };
  const verifying = await startSidecar({ ...common, name: 'svidecar', verifyCertificate: 'required' });
  servers.push(verifying);
  servers.push(
    await startSidecar({ ...common, name: 'svidecar, nothing verified', verifyCertificate: 'off' }),
  );
  if (values.against !== undefined) {
    const other = { ...common, name: values.against, main: path.resolve(values.against) };
    servers.push(await startSidecar({ ...other, verifyCertificate: 'off' }));
  }
  for (const start of [startPlugin, startGoAuthz, startNoop]) {
    const server = await start(directory);
    if (server !== undefined) servers.push(server);
  }
  const request = await checkRequest(verifying.workloadApi);

  for (const server of servers) {
    await untilAllowed(server, request);
    await measure(server, request, 64);
  }
  for (const inFlight of values['in-flight'].split(',').map(Number)) {
    const runs = servers.map((): Run[] => []);
    for (let round = 0; round < rounds; round += 1) {
      for (let turn = 0; turn < servers.length; turn += 1) {
        const index = (turn + round) % servers.length;
        const server = servers[index];
        if (server !== undefined) runs[index]?.push(await measure(server, request, inFlight));
      }
    }
    print(inFlight, runs);
  }
} finally {
  for (const { process: child } of servers) child.kill('SIGTERM');
  rmSync(directory, { recursive: true, force: true });
}

/** One run; the processor time is that of the server's whole process. */
async function measure(server: Server, request: Buffer, inFlight: number): Promise<Run> {
  const total = inFlight === 1 ? 3000 : 15_000;
  const before = cpuSeconds(server.process);
  const figures = await measureUnary({
    socketPath: server.socketPath,
    method,
    request,
    total,
    inFlight,
    accept: isAllowed,
  });
  return { ...figures, cpuUs: ((cpuSeconds(server.process) - before) / total) * 1e6 };
}

function isAllowed(response: Buffer): boolean {
  return (messageCodec('envoy.service.auth.v3.CheckResponse').decode(response).status?.code ?? 0) === 0;
}

/** A sidecar is ready a moment after its socket is. */
async function untilAllowed(server: Server, request: Buffer): Promise<void> {
  const one = { socketPath: server.socketPath, method, request, total: 1, inFlight: 1, accept: isAllowed };
  for (let attempt = 0; attempt < 100; attempt += 1) {
    try {
      await measureUnary(one);
      return;
    } catch {
      await sleep(100, new AbortController().signal);
    }
  }
  throw new Error(`${server.name} does not allow the Check`);
}

/** A Check as Envoy sends it for an HTTP request over mTLS, from the sidecar's own identity, which the policy allows. */
async function checkRequest(workloadApi: string): Promise<Buffer> {
  const source = createWorkloadApiSource({
    address: workloadApi,
    sleep,
    random: Math.random,
    now: Date.now,
    log: silentLogger,
    meter: { updated() {}, failed() {}, answered() {} },
  });
  const stop = new AbortController();
  try {
    for await (const event of source.watchX509(stop.signal)) {
      if (event.kind !== 'update') continue;
      const [svid] = event.value.svids;
      return messageCodec('envoy.service.auth.v3.CheckRequest').encode({
        attributes: {
          source: {
            address: { socketAddress: { address: '10.1.2.3', portValue: 40_000 } },
            principal: svid.spiffeId,
            certificate: encodeURIComponent(encodeCertificatesPem([svid.chain[0]]).toString()),
          },
          destination: {
            address: { socketAddress: { address: '10.1.2.4', portValue: 8443 } },
            principal: svid.spiffeId,
          },
          request: {
            time: { seconds: 1_800_000_000, nanos: 5000 },
            http: {
              id: '1234567890123456789',
              method: 'GET',
              path: '/hello?verbose=1',
              host: 'web.dev.local',
              scheme: 'https',
              protocol: 'HTTP/2',
              headers: {
                ':authority': 'web.dev.local',
                ':method': 'GET',
                ':path': '/hello?verbose=1',
                ':scheme': 'https',
                accept: '*/*',
                'accept-encoding': 'gzip, deflate, br',
                'content-type': 'application/json',
                'user-agent': 'bench/1',
                'x-forwarded-proto': 'https',
                'x-request-id': '7f1a2b3c-0000-4000-8000-123456789abc',
                traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
              },
            },
          },
          metadataContext: {},
          routeMetadataContext: {},
        },
      });
    }
    throw new Error('the watch ended without an identity');
  } finally {
    stop.abort();
  }
}

function print(inFlight: number, runs: readonly (readonly Run[])[]): void {
  const row = (name: string, pick: (run: Run) => number, unit: string): void => {
    servers.forEach((server, index) => {
      const own = runs[index] ?? [];
      // Against the sidecar of the same round, which had the same neighbours on the machine.
      const ratio = median(own.map((run, round) => pick(run) / pick(runs[0]?.[round] ?? run)));
      const figure = median(own.map(pick)).toFixed(0).padStart(7);
      process.stdout.write(
        `check, ${inFlight} in flight, ${name}: ${figure} ${unit}, ${ratio.toFixed(2)} times svidecar's, ${server.name}\n`,
      );
    });
  };
  row('throughput', (run) => run.perSecond, '/s');
  row('mean', (run) => run.meanUs, 'us');
  row('p99', (run) => run.p99Us, 'us');
  row('processor time', (run) => run.cpuUs, 'us each');
}
