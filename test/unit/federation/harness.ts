/** What the tests of this room share: a partner with a hostile or honest endpoint, a store, and a clock that tests turn. */
import type { RequestListener } from 'node:http';
import type { TestContext } from 'node:test';
import type { BundleFiles } from '../../../src/federation/bundle-files.ts';
import type { FederationEntry } from '../../../src/federation/federation-entry.ts';
import type { FederationMeter } from '../../../src/federation/meter.ts';
import { createBundleWatcher } from '../../../src/federation/watch-bundles.ts';
import type { Sleep } from '../../../src/runtime/abort.ts';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import type { LogFields, Logger } from '../../../src/runtime/log.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import type { JwtAuthority } from '../../../src/spiffe/bundle.ts';
import { formatBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createTrustStore } from '../../../src/trust/store.ts';
import {
  createTestAuthority,
  type TestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';
import { startHttpsServer } from '../../support/https-server.ts';
import { until } from '../../support/process.ts';

export const partner = parseTrustDomain('partner.example');
export const endpointId = parseSpiffeId('spiffe://partner.example/bundles');
export const own = parseTrustDomain('own.example');
export const root = await createTestAuthority(partner);
export const nextRoot = await createTestAuthority(partner);

/** A bundle document of the partner. */
export function documentOf(
  authorities: readonly TestAuthority[],
  more: { sequence?: bigint; refreshHintS?: number; jwt?: readonly JwtAuthority[] } = {},
): string {
  const { jwt = [], ...rest } = more;
  return formatBundleDocument({
    x509: x509Bundle(partner, authorities),
    jwt: { trustDomain: partner, authorities: jwt },
    ...rest,
  });
}

/** An endpoint that a test scripts; it shows the partner's endpoint identity. */
export async function startEndpoint(t: TestContext, options: { id?: string } = {}) {
  let handle: RequestListener = (_, response) => response.writeHead(500).end();
  const shown = await root.svid(options.id ?? endpointId);
  const { url, server } = await startHttpsServer(t, shown, (request, response) => handle(request, response));
  return {
    url,
    server,
    answer(listener: RequestListener | string): void {
      handle = typeof listener === 'string' ? (_, response) => response.end(listener) : listener;
    },
  };
}

export function entryFor(url: string, more: Partial<FederationEntry> = {}): FederationEntry {
  return {
    trustDomain: partner,
    url,
    profile: { kind: 'https_spiffe', spiffeId: endpointId },
    bootstrap: documentOf([root]),
    ...more,
  };
}

/** A clock on which a sleep lasts until the test wakes it. */
export function createAlarm() {
  const asleep: { ms: number; wake(): void }[] = [];
  const sleep: Sleep = (ms, signal) =>
    new Promise((resolve, reject) => {
      const leave = (): void => {
        if (asleep.includes(sleeper)) asleep.splice(asleep.indexOf(sleeper), 1);
      };
      const sleeper = {
        ms,
        wake() {
          leave();
          resolve();
        },
      };
      asleep.push(sleeper);
      signal.addEventListener(
        'abort',
        () => {
          leave();
          reject(new AbortedError());
        },
        { once: true },
      );
    });
  return {
    sleep,
    /** Resolves with the length of the sleep, in ms, once one has begun. */
    asleep: (): Promise<number> => until('the watcher to rest', () => asleep[0]?.ms),
    wake(): void {
      asleep[0]?.wake();
    },
  };
}

export type Line = Readonly<{ level: string; message: string; fields: LogFields }>;

/** A watcher over a real store. `round` lets it fetch once more and waits until it rests. */
export async function startWatcher(
  t: TestContext,
  options: {
    entries: readonly FederationEntry[];
    files?: BundleFiles;
    identity?: boolean;
    /** Seeded before it runs. */
    seeds?: readonly FederationEntry[];
  },
) {
  const authority = await createTestAuthority(own);
  const lines: Line[] = [];
  const counted: string[] = [];
  const log: Logger = Object.fromEntries(
    (['debug', 'info', 'warn', 'error'] as const).map((level) => [
      level,
      (fields: LogFields, message: string) => lines.push({ level, message, fields }),
    ]),
  ) as unknown as Logger;
  const meter: FederationMeter = {
    taken: (name, origin, outcome) => counted.push(`${name} ${origin} ${outcome}`),
    refused: (name, reason) => counted.push(`${name} refused ${reason}`),
    fetched() {},
    removed: (name) => counted.push(`${name} removed`),
    served() {},
  };
  const store = createTrustStore({
    now: () => testNow,
    log: silentLogger,
    meter: { applied() {}, rotated() {} },
  });
  const giveIdentity = async (): Promise<void> => {
    const svid = await authority.svid('spiffe://own.example/sidecar');
    const bundles = x509Bundles(x509Bundle(own, [authority]));
    store.apply({ kind: 'x509', context: { svids: [svid], bundles } });
  };
  if (options.identity !== false) await giveIdentity();
  const entries = createLatest(options.entries);
  const alarm = createAlarm();
  const watcher = createBundleWatcher({
    entries,
    store,
    files: options.files,
    now: () => testNow,
    sleep: alarm.sleep,
    random: () => 0.5,
    log,
    meter,
  });
  await watcher.seed(options.seeds ?? []);
  const stop = new AbortController();
  const running = watcher.run(stop.signal);
  const end = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  t.after(end);
  return {
    store,
    watcher,
    entries,
    lines,
    counted,
    giveIdentity,
    authority,
    end,
    asleep: alarm.asleep,
    async round(): Promise<number> {
      await alarm.asleep();
      alarm.wake();
      return alarm.asleep();
    },
    /** Fingerprints of the partner's X.509 authorities in force; undefined when the domain is not held. */
    held: (): readonly string[] | undefined =>
      store
        .current()
        .bundles.get(partner)
        ?.authorities.map(({ fingerprint }) => fingerprint),
  };
}
