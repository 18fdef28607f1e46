import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { bundleEntries } from './bundle-rules.ts';
import { polling as pollingSection } from './policy-section.ts';
import type { Options } from './schema.ts';

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

/** The bundles of checked options; `resolve` makes file names absolute. */
export function bundlesOf(
  options: Pick<Options, 'policy'>,
  resolve: (file: string) => string,
): readonly BundleConfig[] {
  const resolved = (file: string | undefined): string | undefined =>
    file === undefined ? undefined : resolve(file);
  return bundleEntries(options).map(({ at, entry }): BundleConfig => {
    const { name = 'policy', file = '', url, auth, persist_dir: persistDir, verification_key: key } = entry;
    const { min, max, long_poll: longPollMs } = entry.polling ?? pollingSection.parse({});
    return {
      name,
      at,
      from:
        url === undefined
          ? { kind: 'file', file: resolve(file) }
          : {
              kind: 'service',
              url,
              polling: { minMs: min, maxMs: max, longPollMs },
              bearerFile: resolved(auth?.bearer_file),
              spiffeIds: auth?.spiffe_ids ?? [],
              persistDir: resolved(persistDir),
            },
      verificationKey: resolved(key),
    };
  });
}
