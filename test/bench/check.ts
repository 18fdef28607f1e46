// Check throughput and latency with the wasm policy of the quick start, as a ratio to a grpc-js server whose handler does
// nothing. Both are child processes behind a unix socket, called in turn by this process; medians of paired rounds.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { messageCodec } from '../../src/grpc/protos.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { encodeCertificatesPem } from '../../src/spiffe/certificate.ts';
import { createWorkloadApiSource } from '../../src/workload/workload-api.ts';
import { type Figures, measureUnary, median } from './load.ts';

const rounds = 5;
const method = '/envoy.service.auth.v3.Authorization/Check';
const root = fileURLToPath(new URL('../../', import.meta.url));
const directory = mkdtempSync(path.join(tmpdir(), 'svidecar-bench-'));
const sockets = {
  sidecar: path.join(directory, 'sidecar.sock'),
  noop: path.join(directory, 'noop.sock'),
  workload: path.join(directory, 'workload.sock'),
};
const configFile = path.join(directory, 'svidecar.json');
writeFileSync(
  configFile,
  JSON.stringify({
    identity: {
      source: 'dev',
      dev: {
        trust_domain: 'dev.local',
        spiffe_ids: ['spiffe://dev.local/service/web'],
        serve_workload_api: `unix://${sockets.workload}`,
      },
    },
    listen: `unix://${sockets.sidecar}`,
    policy: { engine: 'wasm', bundle: { file: path.join(root, 'examples/quickstart/policy/bundle.tar.gz') } },
    admin: { listen: '127.0.0.1:0' },
    decision_log: { console: process.argv.includes('--decision-log') },
    log: { level: 'warn' },
  }),
);

const children: ChildProcess[] = [];
function start(script: string, args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, [path.join(root, script), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  return child;
}

try {
  const noop = start('test/bench/noop-server.ts', [sockets.noop]);
  if (noop.stdout === null) throw new Error('no stdout');
  await once(createInterface(noop.stdout), 'line');
  const sidecar = start('dist/main.js', ['run', '--config', configFile]);
  sidecar.stdout?.resume();
  const request = await checkRequest();

  for (const inFlight of [1, 64]) {
    const total = inFlight === 1 ? 4000 : 20_000;
    const run = (socketPath: string, accept: (response: Buffer) => boolean): Promise<Figures> =>
      measureUnary({ socketPath, method, request, total, inFlight, accept });
    const allow = (response: Buffer): boolean =>
      (messageCodec('envoy.service.auth.v3.CheckResponse').decode(response).status?.code ?? 0) === 0;
    await run(sockets.noop, () => true);
    await run(sockets.sidecar, allow);
    const pairs: { noop: Figures; sidecar: Figures }[] = [];
    for (let round = 0; round < rounds; round += 1) {
      pairs.push({ noop: await run(sockets.noop, () => true), sidecar: await run(sockets.sidecar, allow) });
    }
    print(inFlight, pairs);
  }
} finally {
  for (const child of children) child.kill('SIGTERM');
  rmSync(directory, { recursive: true, force: true });
}

/** A Check as Envoy sends it for an HTTP request over mTLS, from the sidecar's own identity, which the policy allows. */
async function checkRequest(): Promise<Buffer> {
  const source = createWorkloadApiSource({
    address: `unix://${sockets.workload}`,
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

function print(inFlight: number, pairs: readonly { noop: Figures; sidecar: Figures }[]): void {
  const row = (name: string, pick: (figures: Figures) => number, unit: string): void => {
    const ratio = median(pairs.map(({ noop, sidecar }) => pick(sidecar) / pick(noop)));
    const [ours, theirs] = (['sidecar', 'noop'] as const).map((side) =>
      median(pairs.map((pair) => pick(pair[side]))).toFixed(0),
    );
    process.stdout.write(
      `check, ${inFlight} in flight, ${name}: ratio ${ratio.toFixed(2)} (svidecar ${ours} ${unit}, no-op grpc-js ${theirs} ${unit})\n`,
    );
  };
  row('throughput', (figures) => figures.perSecond, '/s');
  row('mean', (figures) => figures.meanUs, 'us');
  row('p99', (figures) => figures.p99Us, 'us');
}
