import { z } from 'zod';
import { bundleName, bundleUrl, duration, engineUrl, file, name, spiffeId } from './fields.ts';

/** How often a bundle service is asked. */
export const polling = z.strictObject({
  min: duration('1s', '24h')
    .prefault('10s')
    .describe('The shortest time between two requests; the time is random.'),
  max: duration('1s', '24h')
    .prefault('30s')
    .describe('The longest time between two requests, also when the service fails.'),
  long_poll: duration('1s', '1h')
    .optional()
    .describe(
      'Lets the service hold its answer back that long until there is something new; whole seconds. Absent: it is only asked from time to time.',
    ),
});

const bundle = z.strictObject({
  name: bundleName().optional().meta({
    otherwise: '`policy` for a single bundle',
    description: 'What log, metrics and status call it; each bundle of a list needs a name of its own.',
  }),
  file: file()
    .optional()
    .describe(
      'Engine wasm: a bundle built with `opa build -t wasm`, or one of data; it is watched. Either this or `url`.',
    ),
  url: bundleUrl()
    .optional()
    .describe(
      'The same from an HTTP service that speaks the bundle API of OPA. Plain http needs a loopback IP, or `verification_key`.',
    ),
  polling: polling.optional(),
  auth: z
    .strictObject({
      bearer_file: file()
        .optional()
        .describe('A file with the token that the service is shown; read for each request.'),
      spiffe_ids: z
        .array(spiffeId())
        .max(100)
        .default([])
        .describe(
          'Who the service of an https url has to be: a server with an X.509-SVID of one of these, to which we show our default one. None: Web PKI.',
        ),
    })
    .optional(),
  persist_dir: file()
    .optional()
    .describe(
      'A directory for the last good bundle of `url`, kept as `bundles/NAME/bundle.tar.gz`, so that it survives a restart; made with mode 0700 when it is missing.',
    ),
  verification_key: file()
    .optional()
    .describe(
      'A public key in PEM (RSA or EC). With it a bundle has to be signed by this key, as `opa sign` does; without it a signed bundle is refused.',
    ),
});

const push = z.strictObject({
  policy: name()
    .optional()
    .describe('The id under which OPA has the Rego of the file, such as `authz.rego`.'),
  data: name()
    .optional()
    .describe(
      'The path below `data` at which OPA has the JSON of the file, such as `acl/agents`; instead of `policy`.',
    ),
  file: file().describe('The file, of at most 16 MiB; it is watched.'),
});

/** The policy engine. */
export const policy = z.strictObject({
  engine: z
    .enum(['opa', 'wasm'])
    .default('opa')
    .describe('Who decides: an OPA server, or an OPA bundle run inside this process.'),
  timeout: duration('1ms', '60s').prefault('150ms').describe('Bounds the whole Check.'),
  opa: z
    .strictObject({
      url: engineUrl().prefault('http://127.0.0.1:8181').describe('The OPA server.'),
      push: z
        .array(push)
        .max(100)
        .default([])
        .describe(
          'Files that OPA is given at start, in this order, whenever one changes, and again when it was started anew and has lost them. Checks are denied until it has all of them.',
        ),
      spiffe_ids: z
        .array(spiffeId())
        .max(100)
        .default([])
        .describe(
          'Who the OPA of an https url has to be: a server with an X.509-SVID of one of these, to which we show our default one. None: Web PKI.',
        ),
    })
    .prefault({}),
  bundle: z.union([bundle, z.array(bundle).min(1).max(64)]).optional(),
});
