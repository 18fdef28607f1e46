import { z } from 'zod';
import { duration, engineUrl, file } from './fields.ts';

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
    })
    .prefault({}),
  bundle: z
    .strictObject({
      file: file().describe('Engine wasm: a bundle built with `opa build -t wasm`; it is watched.'),
      verification_key: file()
        .optional()
        .describe(
          'A public key in PEM (RSA or EC). With it a bundle has to be signed by this key, as `opa sign` does; without it a signed bundle is refused.',
        ),
    })
    .optional(),
});
