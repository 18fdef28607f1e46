import { z } from 'zod';
import type { HostPort } from '../runtime/socket-address.ts';
import type { IdPattern } from '../spiffe/match.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/spiffe-id.ts';
import { duration, file, hostPort, httpsUrl, idPattern, spiffeId, trustDomain } from './fields.ts';
import type { ResolveFile } from './resolve-file.ts';

/** Partner trust domains, and our own bundle for them. */
export const federation = z.strictObject({
  persist_dir: file()
    .optional()
    .describe(
      'A directory for the last good bundles, so that they survive a restart; made with mode 0700 when it is missing.',
    ),
  trust_domains: z
    .array(
      z.strictObject({
        name: trustDomain().describe('The trust domain that is federated with.'),
        bundle_endpoint: httpsUrl().describe('Where it publishes its bundle.'),
        profile: z
          .enum(['https_spiffe', 'https_web'])
          .describe(
            'How the endpoint proves who it is: by an X509-SVID, or by a certificate of the Web PKI.',
          ),
        endpoint_spiffe_id: spiffeId()
          .optional()
          .describe('The SPIFFE ID that the endpoint must have; required with https_spiffe, and only there.'),
        bootstrap_bundle: file()
          .optional()
          .describe(
            'A SPIFFE bundle document for the time before the first fetch; https_spiffe needs that of the trust domain of the endpoint, unless that domain is ours or has an entry of its own.',
          ),
        ca_file: file().optional().meta({
          otherwise: 'the CAs of the system',
          description: 'The CAs in PEM that may vouch for the endpoint; only with https_web.',
        }),
        allowed_identities: z
          .array(idPattern())
          .max(1000)
          .default([])
          .describe('Patterns of the SPIFFE IDs of this trust domain that may pass; nobody else of it does.'),
      }),
    )
    .max(256)
    .default([])
    .describe('The partners. Entries may come, change and go without a restart.'),
  serve: z
    .strictObject({
      listen: hostPort().describe('Publishes the bundle of our own trust domain at path /.'),
      profile: z
        .enum(['https_spiffe', 'https_web'])
        .default('https_spiffe')
        .describe(
          'What the endpoint shows: our default X509-SVID (TLS 1.3), or a certificate of the Web PKI.',
        ),
      refresh_hint: duration('1s', '24h')
        .prefault('5m')
        .describe('How often partners should ask; in whole seconds.'),
      certificate: file()
        .optional()
        .describe('The chain in PEM, leaf first; required with https_web, and only there. It is watched.'),
      private_key: file()
        .optional()
        .describe('Its key in PEM; required with https_web, and only there. It is watched.'),
    })
    .optional(),
});

/** One partner of `federation.trust_domains`. */
export type FederatedDomainConfig = Readonly<{
  trustDomain: TrustDomain;
  bundleEndpoint: string;
  /** The SPIFFE ID is there exactly with https_spiffe. */
  profile:
    | Readonly<{ kind: 'https_spiffe'; endpointSpiffeId: SpiffeId }>
    | Readonly<{ kind: 'https_web'; caFile: string | undefined }>;
  bootstrapBundle: string | undefined;
  allowedIdentities: readonly IdPattern[];
}>;

export type FederationConfig = Readonly<{
  persistDir: string | undefined;
  trustDomains: readonly FederatedDomainConfig[];
  serve:
    | Readonly<{
        listen: HostPort;
        refreshHintS: number;
        /** Files for https_web; undefined: https_spiffe. */
        files: Readonly<{ certificate: string; privateKey: string }> | undefined;
      }>
    | undefined;
}>;

export function buildFederation(
  { persist_dir: persistDir, trust_domains: trustDomains, serve }: z.output<typeof federation>,
  resolve: ResolveFile,
): FederationConfig {
  const certificate = resolve(serve?.certificate);
  const privateKey = resolve(serve?.private_key);
  return {
    persistDir: resolve(persistDir),
    trustDomains: trustDomains.map((entry) => ({
      trustDomain: entry.name,
      bundleEndpoint: entry.bundle_endpoint,
      profile:
        entry.endpoint_spiffe_id === undefined
          ? { kind: 'https_web', caFile: resolve(entry.ca_file) }
          : { kind: 'https_spiffe', endpointSpiffeId: entry.endpoint_spiffe_id },
      bootstrapBundle: resolve(entry.bootstrap_bundle),
      allowedIdentities: entry.allowed_identities,
    })),
    serve: serve && {
      listen: serve.listen,
      refreshHintS: Math.max(1, Math.round(serve.refresh_hint / 1000)),
      files: certificate !== undefined && privateKey !== undefined ? { certificate, privateKey } : undefined,
    },
  };
}
