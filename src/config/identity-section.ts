import { z } from 'zod';
import { messageOf } from '../runtime/errors.ts';
import type { SocketAddress } from '../runtime/socket-address.ts';
import { parseSpiffeId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/spiffe-id.ts';
import { duration, endpointAddress, file, listenAddress, spiffeId, trustDomain } from './fields.ts';
import type { ResolveFile } from './resolve-file.ts';

function checkTrustDomains(files: Readonly<Record<string, string>>, context: z.RefinementCtx): void {
  for (const key of Object.keys(files)) {
    try {
      if (parseTrustDomain(key) !== key) throw new Error('must be a bare name, without spiffe://');
    } catch (error) {
      context.addIssue({ code: 'custom', message: messageOf(error), path: [key] });
    }
  }
}

/** Where identity comes from. */
export const identity = z.strictObject({
  source: z
    .enum(['workload_api', 'files', 'dev'])
    .default('workload_api')
    .describe(
      'Where SVIDs and bundles come from: a SPIFFE Workload API, files that somebody else writes, or an embedded CA for development. The variable TLS_MODE (`spiffe` or `file`) overrides it.',
    ),
  workload_api: z
    .strictObject({
      address: endpointAddress()
        .prefault('unix:///run/spire/sockets/agent.sock')
        .describe(
          'The Workload API. When neither this nor its variable is set, SPIFFE_ENDPOINT_SOCKET is used, then the default.',
        ),
      on_permission_denied: z
        .enum(['drop', 'keep'])
        .default('drop')
        .describe(
          'What becomes of the identity held when the Workload API says that this workload has none any more.',
        ),
    })
    .prefault({}),
  files: z
    .strictObject({
      certificate: file().describe(
        'The X.509-SVID in PEM, leaf first. All these files are watched, and taken together once key and certificate match.',
      ),
      private_key: file().describe(
        'Its key in PEM: PKCS#8, or the traditional form of an EC or RSA key; not encrypted.',
      ),
      bundle: file().describe(
        'The bundle of the own trust domain: PEM, or a SPIFFE bundle document, which has JWT authorities, too.',
      ),
      federated_bundles: z
        .record(z.string(), file())
        .superRefine(checkTrustDomains)
        .default({})
        .describe(
          'The bundles of other trust domains, by the name of the domain: PEM or SPIFFE bundle document.',
        ),
    })
    .optional(),
  dev: z
    .strictObject({
      trust_domain: trustDomain().prefault('dev.local').describe('The trust domain of the embedded CA.'),
      spiffe_ids: z.array(spiffeId()).min(1).max(100).optional().meta({
        otherwise: '`spiffe://TRUST_DOMAIN/service/web`',
        description: 'The identities that are issued; the first is the default.',
      }),
      svid_ttl: duration('1s', '720h')
        .prefault('1h')
        .describe('How long an X.509-SVID lives; it is renewed at half of that.'),
      jwt_svid_ttl: duration('1s', '24h').prefault('5m').describe('How long a JWT-SVID lives.'),
      serve_workload_api: listenAddress()
        .optional()
        .describe(
          'Also serves these identities as a standard Workload API, for other programs of this machine.',
        ),
    })
    .optional(),
});

type IdentityOptions = z.output<typeof identity>;

/** The embedded CA. */
export type DevIdentityConfig = Readonly<{
  trustDomain: TrustDomain;
  spiffeIds: readonly [SpiffeId, ...SpiffeId[]];
  svidTtlMs: number;
  jwtSvidTtlMs: number;
  serveWorkloadApi: SocketAddress | undefined;
}>;

/** An identity in files; paths as they are opened. */
export type FilesIdentityConfig = Readonly<{
  certificate: string;
  privateKey: string;
  bundle: string;
  federatedBundles: readonly Readonly<{ trustDomain: TrustDomain; file: string }>[];
}>;

export type IdentityConfig = Readonly<{
  source: 'workload_api' | 'files' | 'dev';
  workloadApi: Readonly<{
    /** As written; the workload room reads it by the rules of the standard. */
    address: string;
    onPermissionDenied: 'drop' | 'keep';
  }>;
  /** Set exactly when `source` is files. */
  files: FilesIdentityConfig | undefined;
  /** Set exactly when `source` is dev. */
  dev: DevIdentityConfig | undefined;
}>;

export function buildIdentity(options: IdentityOptions, resolve: ResolveFile): IdentityConfig {
  const { source, workload_api: workloadApi, files, dev } = options;
  return {
    source,
    workloadApi: {
      address: workloadApi.address,
      onPermissionDenied: workloadApi.on_permission_denied,
    },
    files: source === 'files' ? filesOf(files, resolve) : undefined,
    dev: source === 'dev' ? devOf(dev) : undefined,
  };
}

function filesOf(files: IdentityOptions['files'], resolve: ResolveFile): FilesIdentityConfig | undefined {
  if (files === undefined) return undefined;
  return {
    certificate: resolve(files.certificate),
    privateKey: resolve(files.private_key),
    bundle: resolve(files.bundle),
    federatedBundles: Object.entries(files.federated_bundles).map(([name, file]) => ({
      trustDomain: parseTrustDomain(name),
      file: resolve(file),
    })),
  };
}

function devOf(dev: IdentityOptions['dev']): DevIdentityConfig {
  const trustDomain = dev?.trust_domain ?? ('dev.local' as TrustDomain);
  const [first, ...others] = dev?.spiffe_ids ?? [];
  return {
    trustDomain,
    spiffeIds:
      first === undefined ? [parseSpiffeId(`spiffe://${trustDomain}/service/web`)] : [first, ...others],
    svidTtlMs: dev?.svid_ttl ?? 3_600_000,
    jwtSvidTtlMs: dev?.jwt_svid_ttl ?? 300_000,
    serveWorkloadApi: dev?.serve_workload_api,
  };
}
