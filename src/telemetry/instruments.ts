import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Makes metrics, each registered under its name with our prefix. */
export type Instruments = Readonly<{
  counter<L extends string>(name: string, help: string, labels?: readonly L[]): Counter<L>;
  gauge<L extends string>(name: string, help: string, labels?: readonly L[]): Gauge<L>;
  histogram<L extends string>(
    name: string,
    help: string,
    buckets: readonly number[],
    labels?: readonly L[],
  ): Histogram<L>;
}>;

const prefix = 'svidecar_';

/**
 * A registry of its own, with prom-client's metrics of the process: the one that prom-client shares by default would tie
 * instances of the program together.
 */
export function createInstruments() {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix });
  const options = <L extends string>(name: string, help: string, labelNames: readonly L[]) => ({
    name: prefix + name,
    help,
    labelNames: [...labelNames],
    registers: [registry],
  });
  return Object.freeze({
    counter: (name, help, labels = []) => new Counter(options(name, help, labels)),
    gauge: (name, help, labels = []) => new Gauge(options(name, help, labels)),
    histogram: (name, help, buckets, labels = []) =>
      new Histogram({ ...options(name, help, labels), buckets: [...buckets] }),
    /** The answer to a scrape, in Prometheus' text format. */
    async render(): Promise<{ contentType: string; body: string }> {
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
    /** Every metric in the order of its registration, for the reference. */
    list: () => registry.getMetricsAsArray().map(describe),
  } satisfies Instruments & Record<'render' | 'list', unknown>);
}

/** prom-client keeps these on every metric, but tells its types only of a part. */
function describe(metric: object) {
  const { name, help, labelNames, constructor } = metric as {
    name: string;
    help: string;
    labelNames: readonly string[];
    constructor: { name: string };
  };
  return Object.freeze({ name, help, type: constructor.name.toLowerCase(), labels: [...labelNames].sort() });
}
