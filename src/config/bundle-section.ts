import { z } from 'zod';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { bundleName, bundleUrl, duration, file, spiffeId } from './fields.ts';
import type { ResolveFile } from './resolve-file.ts';

/** How often a bundle service is asked. */
const polling = z.strictObject({
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

/** One bundle, or a list of them. */
export const bundles = z.union([bundle, z.array(bundle).min(1).max(64)]);

export type BundleOptions = z.output<typeof bundle>;

/** One entry of `policy.bundle`. */
export type BundleConfig = Readonly<{
  name: string;
  /** Its key path, `policy.bundle` or `policy.bundle[0]`. */
  at: string;
  from: Readonly<{ kind: 'file'; file: string }> | BundleServiceConfig;
  verificationKey: string | undefined;
}>;

/** A bundle that an HTTP service gives. */
export type BundleServiceConfig = Readonly<{
  kind: 'service';
  url: string;
  polling: Readonly<{ minMs: number; maxMs: number; longPollMs: number | undefined }>;
  bearerFile: string | undefined;
  /** Without IDs the service of an https url proves itself by the Web PKI. */
  spiffeIds: readonly SpiffeId[];
  persistDir: string | undefined;
}>;

/** Each entry of `policy.bundle`, which may be a single one, with its key path. */
export function bundleEntries(options: z.output<typeof bundles> | undefined): readonly Readonly<{
  at: string;
  entry: BundleOptions;
}>[] {
  if (options === undefined) return [];
  if (!Array.isArray(options)) return [{ at: 'policy.bundle', entry: options }];
  return options.map((entry, index) => ({ at: `policy.bundle[${index}]`, entry }));
}

export function buildBundles(
  options: z.output<typeof bundles> | undefined,
  resolve: ResolveFile,
): readonly BundleConfig[] {
  return bundleEntries(options).map(({ at, entry }): BundleConfig => {
    const { name = 'policy', file: path = '', url, auth } = entry;
    const { min, max, long_poll: longPollMs } = entry.polling ?? polling.parse({});
    return {
      name,
      at,
      from:
        url === undefined
          ? { kind: 'file', file: resolve(path) }
          : {
              kind: 'service',
              url,
              polling: { minMs: min, maxMs: max, longPollMs },
              bearerFile: resolve(auth?.bearer_file),
              spiffeIds: auth?.spiffe_ids ?? [],
              persistDir: resolve(entry.persist_dir),
            },
      verificationKey: resolve(entry.verification_key),
    };
  });
}
