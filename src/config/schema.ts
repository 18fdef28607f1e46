import { z } from 'zod';
import { extAuthz } from './ext-authz-section.ts';
import { federation } from './federation-section.ts';
import { checked, fileMode, hostPort, listenAddress, name, serviceUrl, trustDomain } from './fields.ts';
import { identity } from './identity-section.ts';
import { output } from './output-section.ts';
import { policy } from './policy-section.ts';
import { sds } from './sds-section.ts';

const pointer = () =>
  checked(['JSON pointer', '/input/parsed_body/pin'], (text) => {
    if (!/^\/(?:input|result)(?:\/(?:[^~/]|~[01])*)*$/.test(text)) {
      throw new Error('must be a JSON pointer into /input or /result, such as /input/parsed_body/pin');
    }
  });

/**
 * Every option of the program, once: its type, default, bounds and a sentence about it. Parsing turns the file's text
 * (`10s`, `4MiB`, `unix:///…`) into values, and `z.encode` turns them back, so this is also what `validate` prints.
 * docs/config.md is generated from here.
 */
export const schema = z.strictObject({
  identity: identity.prefault({}),
  trust_domain: trustDomain()
    .optional()
    .describe('The trust domain that SVIDs must be of; another one is never used. It admits nobody.'),
  listen: listenAddress()
    .prefault('unix:///run/svidecar/svidecar.sock')
    .describe('The gRPC socket: SDS, ext_authz and health.'),
  listen_mode: fileMode()
    .prefault('0660')
    .describe('Permission bits of the unix sockets that Envoy connects to.'),
  sds: sds.prefault({}),
  ext_authz: extAuthz.prefault({}),
  policy: policy.prefault({}),
  federation: federation.prefault({}),
  outputs: z
    .array(output)
    .max(100)
    .default([])
    .describe('Directories of files for programs that cannot speak SDS.'),
  admin: z
    .strictObject({
      listen: hostPort().prefault('127.0.0.1:9902').describe('The admin HTTP server.'),
      allow_jwt_svid: z
        .boolean()
        .default(false)
        .describe('Gives JWT-SVIDs of the default identity to every client of a loopback admin server.'),
      probe_listen: hostPort()
        .optional()
        .describe('A second server with /live, /ready, /health and /metrics only, for kubelets.'),
    })
    .prefault({}),
  decision_log: z
    .strictObject({
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
    })
    .prefault({}),
  tracing: z
    .strictObject({
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
    })
    .prefault({}),
  log: z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error'])
        .default('info')
        .describe('The lowest level that is written.'),
    })
    .prefault({}),
});

/** What a config file may say once parsed, in the file's own names. */
export type Options = z.output<typeof schema>;

/** Parses a tree of plain data; `message` words what zod finds. */
export function parseWith(tree: unknown, message: z.core.$ZodErrorMap) {
  return schema.safeParse(tree, { error: message });
}

/** The options in the file's terms again. */
export function encodeOptions(options: Options): unknown {
  return z.encode(schema, options);
}
