import { z } from 'zod';
import { name, serviceUrl } from './fields.ts';

/** Spans of Checks. */
export const tracing = z.strictObject({
  otlp_endpoint: serviceUrl()
    .optional()
    .describe('An OpenTelemetry collector (OTLP over HTTP), which gets a span for Checks at /v1/traces.'),
  sample: z
    .number()
    .min(0)
    .max(1)
    .default(0.01)
    .describe('The share of Checks with a span, where the trace of the request does not say.'),
  service_name: name().default('svidecar').describe('The `service.name` of the spans.'),
});

export type TracingConfig = Readonly<{ endpoint: string; sample: number; serviceName: string }>;

/** Undefined: off. */
export function buildTracing(options: z.output<typeof tracing>): TracingConfig | undefined {
  const { otlp_endpoint: endpoint, sample, service_name: serviceName } = options;
  return endpoint === undefined ? undefined : { endpoint, sample, serviceName };
}
