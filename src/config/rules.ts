import type { ConfigProblem } from '../runtime/errors.ts';
import { formatHostPort, type HostPort, isLoopback, type SocketAddress } from '../runtime/socket-address.ts';
import { bundleRules } from './bundle-rules.ts';
import { extAuthzTlsRules } from './ext-authz-tls-rules.ts';
import { federationRules } from './federation-rules.ts';
import { identityRules } from './identity-rules.ts';
import { opaRules } from './opa-rules.ts';
import { outputRules } from './output-rules.ts';
import type { Rule } from './rule.ts';
import type { Options } from './schema.ts';
import { formatSize } from './units.ts';

const rules: readonly Rule[] = [
  ...identityRules,
  {
    reads: ['sds.default_svid_name', 'sds.default_bundle_name', 'sds.default_all_bundles_name'],
    check({ sds }) {
      const names = [sds.default_svid_name, sds.default_bundle_name, sds.default_all_bundles_name];
      return new Set(names).size === names.length
        ? []
        : [
            {
              path: 'sds',
              message: 'default_svid_name, default_bundle_name and default_all_bundles_name must differ',
            },
          ];
    },
  },
  {
    reads: ['ext_authz.body.max_bytes', 'ext_authz.limits.max_message_bytes'],
    check: ({ ext_authz: { body, limits } }) =>
      body.max_bytes < limits.max_message_bytes
        ? []
        : [
            {
              path: 'ext_authz.body.max_bytes',
              message: `must be less than ext_authz.limits.max_message_bytes (${formatSize(limits.max_message_bytes)}), because a Check holds more than the body`,
            },
          ],
  },
  {
    reads: [
      'listen',
      'ext_authz.enabled',
      'ext_authz.listen',
      'ext_authz.inject_jwt_svid',
      'ext_authz.bridge',
      'ext_authz.tls',
    ],
    check: ({ listen, ext_authz }) =>
      ext_authz.enabled &&
      ext_authz.tls.client_spiffe_ids.length === 0 &&
      (ext_authz.listen ?? listen).kind !== 'unix'
        ? (['inject_jwt_svid', 'bridge'] as const)
            .filter((key) => ext_authz[key].length > 0)
            .map((key) => ({
              path: `ext_authz.${key}`,
              message:
                'needs a unix socket: JWT-SVIDs do not go over tcp without TLS; set ext_authz.listen or ext_authz.tls',
            }))
        : [],
  },
  {
    reads: ['policy.engine', 'ext_authz.cache.ttl'],
    check: ({ policy, ext_authz }) =>
      policy.engine === 'opa' && ext_authz.cache.ttl > 0
        ? [
            {
              path: 'ext_authz.cache.ttl',
              message:
                'needs policy.engine: wasm: an OPA server does not tell when its policy or data change',
            },
          ]
        : [],
  },
  {
    reads: ['policy.engine', 'policy.bundle', 'ext_authz.enabled'],
    check: ({ policy, ext_authz }) =>
      ext_authz.enabled && policy.engine === 'wasm' && policy.bundle === undefined
        ? [{ path: 'policy.bundle', message: 'is required with policy.engine: wasm: a file or a url' }]
        : [],
  },
  {
    reads: ['policy.bundle'],
    check: ({ policy: { bundle } }) => {
      if (!Array.isArray(bundle)) return [];
      const names = bundle.map(({ name }) => name);
      return names.flatMap((name, index) => {
        const path = `policy.bundle[${index}].name`;
        if (name === undefined) return [{ path, message: 'is required in a list of bundles' }];
        const first = names.indexOf(name);
        return first < index ? [{ path, message: `is the name of policy.bundle[${first}] too` }] : [];
      });
    },
  },
  {
    reads: ['admin.listen', 'admin.allow_jwt_svid'],
    check: ({ admin }) =>
      admin.allow_jwt_svid && !isLoopback(admin.listen.host)
        ? [
            {
              path: 'admin.allow_jwt_svid',
              message: `must be false, because admin.listen (${formatHostPort(admin.listen)}) is not on loopback`,
            },
          ]
        : [],
  },
  {
    reads: [
      'listen',
      'ext_authz.listen',
      'identity.dev.serve_workload_api',
      'admin.listen',
      'admin.probe_listen',
      'federation.serve.listen',
    ],
    check: sameSocketTwice,
  },
  ...bundleRules,
  ...extAuthzTlsRules,
  ...opaRules,
  ...federationRules,
  ...outputRules,
  {
    reads: ['sds.enabled', 'ext_authz.enabled', 'outputs'],
    check: ({ sds, ext_authz, outputs }) =>
      sds.enabled || ext_authz.enabled || outputs.length > 0
        ? []
        : [
            {
              path: '',
              message:
                'sds.enabled and ext_authz.enabled are both false and there are no outputs, so there is nothing to do',
            },
          ],
  },
];

/** What is wrong with options that are each fine; `broken` are the key paths that already have a problem. */
export function checkRules(options: Options, broken: readonly string[]): readonly ConfigProblem[] {
  return rules
    .filter(({ reads }) => !reads.some((path) => touches(path, broken)))
    .flatMap((r) => r.check(options));
}

function touches(path: string, broken: readonly string[]): boolean {
  return broken.some((other) => within(path, other) || within(other, path));
}

function within(path: string, section: string): boolean {
  return path === section || path.startsWith(`${section}.`) || path.startsWith(`${section}[`);
}

/** `listen` and `ext_authz.listen` may be the same socket, which is then shared; no other two may. */
function sameSocketTwice({
  listen,
  ext_authz,
  identity,
  admin,
  federation,
}: Options): readonly ConfigProblem[] {
  const taken = new Map<string, string>();
  const sockets: readonly (readonly [string, SocketAddress | HostPort | undefined])[] = [
    ['listen', listen],
    ['identity.dev.serve_workload_api', identity.dev?.serve_workload_api],
    ['admin.listen', admin.listen],
    ['admin.probe_listen', admin.probe_listen],
    ['federation.serve.listen', federation.serve?.listen],
    ['ext_authz.listen', ext_authz.listen],
  ];
  return sockets.flatMap(([path, address]) => {
    if (address === undefined || ('port' in address && address.port === 0)) return [];
    const key = 'path' in address ? address.path : formatHostPort(address);
    const holder = taken.get(key);
    taken.set(key, path);
    if (holder === undefined || (holder === 'listen' && path === 'ext_authz.listen')) return [];
    return [{ path, message: `is the same socket as ${holder}` }];
  });
}
