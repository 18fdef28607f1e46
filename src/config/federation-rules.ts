import type { ConfigProblem } from '../runtime/errors.ts';
import { pathOf, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { Rule } from './rule.ts';
import type { Options } from './schema.ts';

type Entry = Options['federation']['trust_domains'][number];

/** What the options under `federation` have to do with each other and with our own identity. */
export const federationRules: readonly Rule[] = [
  {
    reads: ['federation.trust_domains', 'trust_domain', 'identity.source', 'identity.dev.trust_domain'],
    check: (options) =>
      options.federation.trust_domains.flatMap((entry, index, all) => {
        const path = `federation.trust_domains[${index}]`;
        const own = ownDomainOf(options);
        if (entry.name === own) {
          return [{ path: `${path}.name`, message: 'is our own trust domain, which is not federated with' }];
        }
        if (all.findIndex(({ name }) => name === entry.name) !== index) {
          return [{ path: `${path}.name`, message: 'is there twice' }];
        }
        const foreign = entry.allowed_identities.findIndex(({ trustDomain }) => trustDomain !== entry.name);
        return [
          ...(foreign === -1
            ? []
            : [
                {
                  path: `${path}.allowed_identities[${foreign}]`,
                  message: `is not of ${entry.name}, so it would never match`,
                },
              ]),
          ...profileProblems(entry, path),
          ...bootstrapProblems(entry, path, [own, ...all.map(({ name }) => name)]),
        ];
      }),
  },
  {
    reads: ['federation.serve'],
    check({ federation: { serve } }) {
      if (serve === undefined) return [];
      return (['certificate', 'private_key'] as const).flatMap((key) => {
        const path = `federation.serve.${key}`;
        if (serve.profile === 'https_web') {
          return serve[key] === undefined ? [{ path, message: 'is required with profile: https_web' }] : [];
        }
        return serve[key] === undefined
          ? []
          : [{ path, message: 'is only for profile: https_web; https_spiffe shows our X509-SVID' }];
      });
    },
  },
];

function profileProblems(entry: Entry, path: string): readonly ConfigProblem[] {
  const { profile, endpoint_spiffe_id: id, ca_file: ca } = entry;
  if (profile === 'https_web') {
    return id === undefined
      ? []
      : [{ path: `${path}.endpoint_spiffe_id`, message: 'is only for profile: https_spiffe' }];
  }
  const problems: ConfigProblem[] = [];
  const idPath = `${path}.endpoint_spiffe_id`;
  if (id === undefined) problems.push({ path: idPath, message: 'is required with profile: https_spiffe' });
  else if (pathOf(id) === '')
    problems.push({ path: idPath, message: 'has no path, so no workload can have it' });
  if (ca !== undefined) {
    problems.push({
      path: `${path}.ca_file`,
      message: 'is only for profile: https_web; https_spiffe goes by the bundle of endpoint_spiffe_id',
    });
  }
  return problems;
}

/** Without a bundle of the endpoint's own trust domain its certificate can never be verified. */
function bootstrapProblems(
  { profile, endpoint_spiffe_id: id, bootstrap_bundle: bootstrap, name }: Entry,
  path: string,
  held: readonly (TrustDomain | undefined)[],
): readonly ConfigProblem[] {
  if (profile !== 'https_spiffe' || id === undefined || bootstrap !== undefined) return [];
  const vouching = trustDomainOf(id);
  if (vouching !== name && held.includes(vouching)) return [];
  return [
    {
      path: `${path}.bootstrap_bundle`,
      message: `is required: the endpoint cannot be verified without a bundle of ${vouching} (if that is our own trust domain, say so with trust_domain)`,
    },
  ];
}

/** As far as the configuration says it: the trust domain of a Workload API's SVIDs is known only later. */
function ownDomainOf({ trust_domain, identity }: Options): TrustDomain | undefined {
  if (trust_domain !== undefined || identity.source !== 'dev') return trust_domain;
  return identity.dev?.trust_domain ?? ('dev.local' as TrustDomain);
}
