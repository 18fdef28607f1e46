import { z } from 'zod';
import { bundleName, duration, engineUrl, file, spiffeId } from './fields.ts';

const bundle = z.strictObject({
  name: bundleName().optional().meta({
    otherwise: '`policy` for a single bundle',
    description: 'What log, metrics and status call it; each bundle of a list needs a name of its own.',
  }),
  file: file().describe(
    'Engine wasm: a bundle built with `opa build -t wasm`, or one of data; it is watched.',
  ),
  verification_key: file()
    .optional()
    .describe(
      'A public key in PEM (RSA or EC). With it a bundle has to be signed by this key, as `opa sign` does; without it a signed bundle is refused.',
    ),
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
