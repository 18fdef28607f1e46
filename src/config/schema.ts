import { z } from 'zod';
import { admin } from './admin-section.ts';
import { decisionLog } from './decision-log-section.ts';
import { extAuthz } from './ext-authz-section.ts';
import { federation } from './federation-section.ts';
import { fileMode, listenAddress, trustDomain } from './fields.ts';
import { identity } from './identity-section.ts';
import { output } from './output-section.ts';
import { policy } from './policy-section.ts';
import { sds } from './sds-section.ts';
import { tracing } from './tracing-section.ts';

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
  admin: admin.prefault({}),
  decision_log: decisionLog.prefault({}),
  tracing: tracing.prefault({}),
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
