import type { ConfigProblem } from '../runtime/errors.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { Rule } from './rule.ts';
import type { Options } from './schema.ts';

/** What holds between the options of `identity`, and between them and those that need what a source may not have. */
export const identityRules: readonly Rule[] = [
  {
    reads: ['identity.source', 'identity.dev'],
    check: ({ identity }) =>
      identity.dev !== undefined && identity.source !== 'dev'
        ? [{ path: 'identity.dev', message: 'is an embedded CA and only allowed with identity.source: dev' }]
        : [],
  },
  {
    reads: ['identity.source', 'identity.files'],
    check: ({ identity }) =>
      identity.source === 'files' && identity.files === undefined
        ? [
            {
              path: 'identity.files',
              message:
                'is required with identity.source: files (TLS_MODE=file): certificate, private_key and bundle',
            },
          ]
        : [],
  },
  {
    reads: ['identity.dev.trust_domain', 'identity.dev.spiffe_ids'],
    check: ({ identity: { dev } }) =>
      (dev?.spiffe_ids ?? []).flatMap((id, index, all) => {
        const path = `identity.dev.spiffe_ids[${index}]`;
        if (trustDomainOf(id) !== dev?.trust_domain) {
          return [
            { path, message: `is not of the trust domain ${dev?.trust_domain} that identity.dev issues for` },
          ];
        }
        if (id === `spiffe://${trustDomainOf(id)}`) {
          return [{ path, message: 'has no path; only an authority may stand for the trust domain itself' }];
        }
        return all.indexOf(id) === index ? [] : [{ path, message: 'is there twice' }];
      }),
  },
  {
    reads: ['identity.source', 'identity.dev.trust_domain', 'trust_domain'],
    check: ({ identity, trust_domain }) =>
      identity.source === 'dev' &&
      trust_domain !== undefined &&
      trust_domain !== (identity.dev?.trust_domain ?? 'dev.local')
        ? [{ path: 'trust_domain', message: 'is another one than identity.dev.trust_domain' }]
        : [],
  },
  {
    reads: ['identity.source', 'sds.jwt_audiences', 'ext_authz.inject_jwt_svid', 'ext_authz.bridge'],
    check: jwtSvidsFromFiles,
  },
];

function jwtSvidsFromFiles({ identity, sds, ext_authz }: Options): readonly ConfigProblem[] {
  if (identity.source !== 'files') return [];
  const wanted: readonly (readonly [string, number])[] = [
    ['sds.jwt_audiences', sds.jwt_audiences.length],
    ['ext_authz.inject_jwt_svid', ext_authz.inject_jwt_svid.length],
    ['ext_authz.bridge', ext_authz.bridge.length],
  ];
  return wanted
    .filter(([, count]) => count > 0)
    .map(([path]) => ({
      path,
      message: 'needs an identity source that issues JWT-SVIDs, which identity.source: files does not',
    }));
}
