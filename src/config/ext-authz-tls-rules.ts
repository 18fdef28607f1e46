import { isDeepStrictEqual } from 'node:util';
import { isLoopback } from '../runtime/socket-address.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import { onLoopback } from './address.ts';
import type { Rule } from './rule.ts';
import type { Options } from './schema.ts';

export const extAuthzTlsRules: readonly Rule[] = [
  {
    reads: ['ext_authz.listen', 'ext_authz.tls'],
    check: ({ ext_authz: { listen, tls } }) =>
      listen?.kind === 'tcp' && !isLoopback(listen.host) && tls.client_spiffe_ids.length === 0
        ? [{ path: 'ext_authz.listen', message: `${onLoopback}, unless ext_authz.tls is set` }]
        : [],
  },
  {
    reads: ['listen', 'ext_authz.listen', 'ext_authz.tls'],
    // SDS hands out private keys: it is never served there.
    check: ({ listen, ext_authz: { listen: apart, tls } }) =>
      tls.client_spiffe_ids.length > 0 && (apart?.kind !== 'tcp' || isDeepStrictEqual(apart, listen))
        ? [
            {
              path: 'ext_authz.tls',
              message: 'needs an ext_authz.listen of its own that is tcp, such as tcp://0.0.0.0:9903',
            },
          ]
        : [],
  },
  {
    reads: ['ext_authz.tls', 'trust_domain', 'identity.source', 'identity.dev.trust_domain'],
    check(options) {
      const ids = options.ext_authz.tls.client_spiffe_ids;
      const own = ownDomain(options) ?? (ids[0] === undefined ? undefined : trustDomainOf(ids[0]));
      return ids.flatMap((id, index) =>
        trustDomainOf(id) === own
          ? []
          : [
              {
                path: `ext_authz.tls.client_spiffe_ids[${index}]`,
                message: `must be of the own trust domain${own === undefined ? '' : `, ${own}`}`,
              },
            ],
      );
    },
  },
];

function ownDomain({ trust_domain, identity }: Options): string | undefined {
  return trust_domain ?? (identity.source === 'dev' ? identity.dev?.trust_domain : undefined);
}
