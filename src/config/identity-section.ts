import { z } from 'zod';
import { messageOf } from '../runtime/errors.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { duration, endpointAddress, file, listenAddress, spiffeId, trustDomain } from './fields.ts';

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
