import { randomUUID } from 'node:crypto';
import type { Writable } from 'node:stream';
import type { Config } from '../config/config.ts';
import type { CheckTrace } from '../extauthz/check-trace.ts';
import { consoleLine } from '../extauthz/decision-log/console-line.ts';
import {
  createDecisionLog,
  type DecisionEvent,
  type DecisionLogMeter,
} from '../extauthz/decision-log/decision-log.ts';
import { createDecisionUpload, type DecisionUploadMeter } from '../extauthz/decision-log/decision-upload.ts';
import { createLogPolicy, type LogPolicyMeter } from '../extauthz/decision-log/log-policy.ts';
import { createRedactor } from '../extauthz/decision-log/redaction.ts';
import { createHttpClient } from '../http/client.ts';
import { aborted } from '../runtime/abort.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import type { Clock } from './clock.ts';
import { tokenHeadersOf } from './jwt-authorization.ts';
import type { ConfiguredEngine } from './policy-engine.ts';

export type DecisionRecords = Readonly<{ record(trace: CheckTrace): void; run: Task }>;

/** How long the service has for the last records once no Check is in progress any more. */
const flushMs = 3_000;
/** How long a policy has at most for its word about one record. */
const maxPolicyMs = 1_000;

/** The decision log as configured, to the console, to a service, or both; undefined when it goes nowhere. */
export function createDecisionRecords(
  config: Config,
  deps: {
    configured: ConfiguredEngine;
    stdout: Writable;
    /** Fulfilled when no Check is in progress any more and none will come. */
    drained: Promise<void>;
    clock: Clock;
    log: Logger;
    meter: DecisionLogMeter & DecisionUploadMeter & LogPolicyMeter;
    version: string;
  },
): DecisionRecords | undefined {
  const { console, mask, service, sample } = config.decisionLog;
  const { stdout, configured, clock, log, meter } = deps;
  if (!console && service.url === undefined) return undefined;
  const http = createHttpClient({ maxSockets: 1 });
  const upload =
    service.url === undefined
      ? undefined
      : createDecisionUpload({ url: service.url, http, ...clock, log, meter });
  const policy = createLogPolicy({
    engine: configured.engine,
    has: configured.kind === 'wasm' ? (path) => configured.engine.entrypoints().includes(path) : undefined,
    timeoutMs: Math.min(config.policy.timeoutMs, maxPolicyMs),
    monotonicNow: clock.monotonicNow,
    log,
    meter,
  });
  const records = createDecisionLog({
    sink(event: DecisionEvent) {
      const text = JSON.stringify(event);
      if (console) stdout.write(consoleLine(text, clock.now()));
      upload?.add(event, text);
    },
    backlog: () =>
      console && stdout.writableNeedDrain
        ? new Promise((resolve) => stdout.once('drain', resolve))
        : undefined,
    redact: createRedactor(mask, tokenHeadersOf(config)),
    policy: (event, signal) => policy.apply(event, signal),
    labels: { id: randomUUID(), version: deps.version },
    sample,
    random: clock.random,
    meter,
  });

  async function run(signal: AbortSignal): Promise<void> {
    const [stopRecords, stopUpload] = [new AbortController(), new AbortController()];
    const uploading = upload?.run(stopUpload.signal, flushMs);
    const recording = records.run(stopRecords.signal);
    await aborted(signal);
    // Checks in progress are recorded too.
    await deps.drained;
    stopRecords.abort();
    await recording;
    stopUpload.abort();
    await uploading;
    http.close();
  }

  return Object.freeze({ record: (trace: CheckTrace) => records.record(trace), run });
}
