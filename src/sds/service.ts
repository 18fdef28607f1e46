import { randomBytes } from 'node:crypto';
import type { CallContext, Service } from '../grpc/service.ts';
import { type Sleep, sleep } from '../runtime/abort.ts';
import type { Logger } from '../runtime/log.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import { createCatalogs } from './catalogs.ts';
import { describeClient, type SdsClient } from './clients.ts';
import { type DeltaAnswer, initialDeltaState, stepDelta } from './delta-stream.ts';
import type { ServedJwtSvids } from './jwt-svids.ts';
import type { SdsMeter } from './meter.ts';
import {
  type DeltaRequest,
  decodeDeltaRequest,
  decodeSotwRequest,
  defaultLimits,
  type SotwRequest,
} from './requests.ts';
import { answerVersion, type CatalogOptions, noJwtSvids, type Resource } from './resources.ts';
import { encodeDeltaAnswer, encodeSotwAnswer } from './responses.ts';
import { initialSotwState, type SotwAnswer, stepSotw } from './sotw-stream.ts';
import type { Step, StreamEvent, StreamSettings, StreamState } from './stream.ts';
import { mergeEvents } from './stream-events.ts';
import { createStreamReport } from './stream-report.ts';

/** The `sds` section of the configuration. */
export type SdsOptions = CatalogOptions & Pick<StreamSettings, 'spiffeValidator' | 'unknownNames'>;

export type Sds = Readonly<{
  service: Service;
  /** The streams that are open now, oldest first. */
  clients(): readonly SdsClient[];
}>;

/**
 * Envoy's SecretDiscoveryService, fed from `snapshots` and `jwtSvids`. Streams may open before there is any identity: they wait for
 * it. Secrets are encoded once for all streams of a snapshot.
 */
export function createSdsService(deps: {
  snapshots: SnapshotReader;
  /** Absent: no JWT-SVIDs are served. */
  jwtSvids?: ServedJwtSvids | undefined;
  options: SdsOptions;
  log: Logger;
  meter: SdsMeter;
  now: () => number;
  sleep?: Sleep | undefined;
}): Sds {
  const { snapshots, jwtSvids, options, now } = deps;
  const settings: StreamSettings = Object.freeze({
    spiffeValidator: options.spiffeValidator,
    unknownNames: options.unknownNames,
    maxNames: defaultLimits.maxNames,
  });
  const catalogsReady = createCatalogs({
    ...deps,
    jwtSvids: () => jwtSvids?.current() ?? noJwtSvids,
    sleep: deps.sleep ?? sleep,
  });
  const open = new Map<string, () => SdsClient>();
  const nextStreamId = createStreamIds();

  async function* run<S extends StreamState, R, A extends { resources: readonly Resource[] }>(
    protocol: 'sotw' | 'delta',
    initial: S,
    step: (state: S, event: StreamEvent<R>) => Step<S, A>,
    requests: AsyncIterable<R>,
    { signal }: CallContext,
  ): AsyncGenerator<A, void, void> {
    const report = createStreamReport(protocol, deps);
    const openedAt = now();
    let state = initial;
    open.set(initial.streamId, () => describeClient(protocol, openedAt, state));
    report.opened();
    try {
      const catalogs = await catalogsReady;
      const changes = (until: AbortSignal) => [
        snapshots.changes(until),
        catalogs.changes(until),
        ...(jwtSvids === undefined ? [] : [jwtSvids.changes(until)]),
      ];
      for await (const event of mergeEvents(requests, changes, signal)) {
        const result = step(state, { ...event, catalog: catalogs.current(), now: now() });
        state = result.state;
        report.notes(state, result.notes);
        if (result.fail !== undefined) throw result.fail;
        if (result.send === undefined) continue;
        report.sent(state, result.send.resources);
        yield result.send;
      }
    } finally {
      open.delete(initial.streamId);
      report.closed();
    }
  }

  async function answerOnce(request: SotwRequest): Promise<SotwAnswer> {
    const report = createStreamReport('fetch', deps);
    report.opened();
    try {
      const catalog = (await catalogsReady).current();
      const initial = initialSotwState(nextStreamId(), settings);
      const { state, send, notes, fail } = stepSotw(initial, {
        kind: 'request',
        request,
        catalog,
        now: now(),
      });
      report.notes(state, notes);
      if (fail !== undefined) throw fail;
      if (send === undefined) return { version: answerVersion([]), nonce: '', resources: [] };
      report.sent(state, send.resources);
      // A nonce is for replies, and a fetch has none.
      return { ...send, nonce: '' };
    } finally {
      report.closed();
    }
  }

  const service = Object.freeze<Service>({
    name: 'envoy.service.secret.v3.SecretDiscoveryService',
    methods: {
      StreamSecrets: {
        kind: 'bidi',
        decode: (bytes) => decodeSotwRequest(bytes),
        encode: encodeSotwAnswer,
        handle: (requests: AsyncIterable<SotwRequest>, call): AsyncIterable<SotwAnswer> =>
          run('sotw', initialSotwState(nextStreamId(), settings), stepSotw, requests, call),
      },
      DeltaSecrets: {
        kind: 'bidi',
        decode: (bytes) => decodeDeltaRequest(bytes),
        encode: encodeDeltaAnswer,
        handle: (requests: AsyncIterable<DeltaRequest>, call): AsyncIterable<DeltaAnswer> =>
          run('delta', initialDeltaState(nextStreamId(), settings), stepDelta, requests, call),
      },
      FetchSecrets: {
        kind: 'unary',
        decode: (bytes) => decodeSotwRequest(bytes),
        encode: encodeSotwAnswer,
        handle: answerOnce,
      },
    },
  });

  return Object.freeze({ service, clients: () => [...open.values()].map((describe) => describe()) });
}

/** IDs that no earlier run of the program has used either: an Envoy may still hold a nonce from then. */
function createStreamIds(): () => string {
  const run = randomBytes(6).toString('hex');
  let count = 0;
  return () => {
    count += 1;
    return `${run}-${count}`;
  };
}
