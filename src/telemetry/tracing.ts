import { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { AlwaysOnSampler, BasicTracerProvider, type ReadableSpan } from '@opentelemetry/sdk-trace-base';
import { type Sleep, withDeadline } from '../runtime/abort.ts';
import { AbortedError, messageOf, TimeoutError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';

/** One step of what was done, `afterMs` milliseconds after the start of the whole. */
export type ChildSpan = Readonly<{ name: string; afterMs: number; durationMs: number }>;

/** What a server did for one request, told once it is over. */
export type ServerSpan = Readonly<{
  name: string;
  /** Milliseconds since the epoch. */
  startedAt: number;
  durationMs: number;
  /** The caller's span: 32 and 16 hexadecimal digits. Undefined: a trace begins here. */
  parent: Readonly<{ traceId: string; spanId: string }> | undefined;
  attributes: Readonly<Record<string, string>>;
  failed: boolean;
  children: readonly ChildSpan[];
}>;

/** What tracing counts. */
export interface TracingMeter {
  spansExported(count: number): void;
  spansDropped(reason: 'queue_full' | 'export_failed' | 'shutdown', count: number): void;
}

export type TracingOptions = Readonly<{
  /** Where the collector takes OTLP over HTTP; spans are posted to /v1/traces below it. */
  endpoint: string;
  serviceName: string;
  version: string;
  sleep: Sleep;
  log: Logger;
  meter: TracingMeter;
  /** Between two batches, in milliseconds. */
  intervalMs?: number;
  /** Spans that wait at most. */
  maxQueue?: number;
}>;

export interface Tracing {
  /** Takes a span to send; takes no time, waits for nobody and never throws. */
  record(span: ServerSpan): void;
  /** Sends until `signal` fires and `drained` is fulfilled, then what is left, for `flushMs` milliseconds at most. */
  run(signal: AbortSignal, drained: Promise<void>, flushMs: number): Promise<void>;
}

const maxBatch = 512;
const exportTimeoutMs = 2_000;

/**
 * Sends spans to an OpenTelemetry collector, in batches and beside the work: while it does not take them, they wait within
 * a bound, and those beyond are dropped and counted. The only door to OpenTelemetry's packages.
 */
export function createTracing(options: TracingOptions): Tracing {
  const { endpoint, serviceName, version, sleep, log, meter, intervalMs = 1_000, maxQueue = 2_048 } = options;
  const url = `${endpoint.replace(/\/$/, '')}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: exportTimeoutMs });
  const queue: ReadableSpan[] = [];
  let wake: (() => void) | undefined;
  let failing = false;

  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ 'service.name': serviceName, 'service.version': version }),
    // Whoever records has sampled before.
    sampler: new AlwaysOnSampler(),
    spanProcessors: [
      {
        onStart() {},
        onEnd(span: ReadableSpan) {
          if (queue.length >= maxQueue) {
            meter.spansDropped('queue_full', 1);
            return;
          }
          queue.push(span);
          if (queue.length >= maxBatch) wake?.();
        },
        async forceFlush() {},
        async shutdown() {},
      },
    ],
  });
  const tracer = provider.getTracer('svidecar', version);

  async function sendBatch(): Promise<void> {
    const batch = queue.splice(0, maxBatch);
    const { code, error } = await new Promise<{ code: number; error?: Error }>((resolve) =>
      exporter.export(batch, resolve),
    );
    // ExportResultCode.SUCCESS
    const sent = code === 0;
    if (sent) meter.spansExported(batch.length);
    else meter.spansDropped('export_failed', batch.length);
    if (sent === failing) tell(sent, error);
    failing = !sent;
  }

  function tell(sent: boolean, error: Error | undefined): void {
    if (sent) log.info({ url }, 'the collector takes spans again');
    else log.warn({ url, error: messageOf(error) }, 'the collector does not take spans: they are dropped');
  }

  async function wait(signal: AbortSignal): Promise<void> {
    const enough = new AbortController();
    wake = () => enough.abort();
    try {
      if (queue.length < maxBatch) await sleep(intervalMs, AbortSignal.any([signal, enough.signal]));
    } catch (error) {
      if (!(error instanceof AbortedError)) throw error;
    } finally {
      wake = undefined;
    }
  }

  async function flush(signal: AbortSignal): Promise<void> {
    while (queue.length > 0 && !signal.aborted) await sendBatch();
    await exporter.shutdown();
  }

  return {
    record({ name, startedAt, durationMs, parent, attributes, failed, children }) {
      const caller = parent && { ...parent, traceFlags: TraceFlags.SAMPLED, isRemote: true };
      const outside = caller === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, caller);
      const startTime = hrTime(startedAt);
      const span = tracer.startSpan(name, { kind: SpanKind.SERVER, startTime, attributes }, outside);
      const inside = trace.setSpan(outside, span);
      for (const { name: step, afterMs, durationMs: took } of children) {
        const at = startedAt + afterMs;
        tracer.startSpan(step, { startTime: hrTime(at) }, inside).end(hrTime(at + took));
      }
      if (failed) span.setStatus({ code: SpanStatusCode.ERROR });
      span.end(hrTime(startedAt + durationMs));
    },
    async run(signal, drained, flushMs) {
      while (!signal.aborted) {
        await wait(signal);
        while (queue.length > 0 && !signal.aborted) await sendBatch();
      }
      await drained;
      try {
        await withDeadline(flushMs, new AbortController().signal, flush);
      } catch (error) {
        if (!(error instanceof TimeoutError)) throw error;
      }
      if (queue.length > 0) meter.spansDropped('shutdown', queue.length);
    },
  };
}

/** Seconds and nanoseconds: a bare number could be taken for one of another clock. */
function hrTime(milliseconds: number): [number, number] {
  const seconds = Math.floor(milliseconds / 1000);
  return [seconds, Math.round((milliseconds - seconds * 1000) * 1e6)];
}
