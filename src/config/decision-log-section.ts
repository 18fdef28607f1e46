import { z } from 'zod';
import { checked, serviceUrl } from './fields.ts';

const pointer = () =>
  checked(['JSON pointer', '/input/parsed_body/pin'], (text) => {
    if (!/^\/(?:input|result)(?:\/(?:[^~/]|~[01])*)*$/.test(text)) {
      throw new Error('must be a JSON pointer into /input or /result, such as /input/parsed_body/pin');
    }
  });

/** What is written of each decision, and where to. */
export const decisionLog = z.strictObject({
  console: z.boolean().default(true).describe('Writes one line per decision to standard output.'),
  mask: z
    .array(pointer())
    .max(1000)
    .default(['/input/attributes/request/http/headers/authorization'])
    .describe('JSON pointers into the decision line that are redacted, beside those that always are.'),
  service: z
    .strictObject({
      url: serviceUrl()
        .optional()
        .describe('Where records are posted too: JSON arrays, gzip, as OPA sends its decision log.'),
    })
    .prefault({}),
  sample: z
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe('The share of allows that is recorded; denials and failures always are.'),
});

export type DecisionLogConfig = Readonly<{
  console: boolean;
  mask: readonly string[];
  service: Readonly<{ url: string | undefined }>;
  sample: number;
}>;

export function buildDecisionLog(options: z.output<typeof decisionLog>): DecisionLogConfig {
  const { console, mask, service, sample } = options;
  return { console, mask, service: { url: service.url }, sample };
}
