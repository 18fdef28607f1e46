import { z } from 'zod';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { type BundleConfig, buildBundles, bundles } from './bundle-section.ts';
import { duration, engineUrl, file, name, spiffeId } from './fields.ts';
import type { ResolveFile } from './resolve-file.ts';

const push = z.strictObject({
  policy: name()
    .optional()
    .describe('The id under which OPA has the Rego of the file, such as `authz.rego`.'),
  data: name()
    .optional()
    .describe(
      'The path below `data` at which OPA has the JSON of the file, such as `acl/agents`; instead of `policy`.',
    ),
  file: file().describe('The file, of at most 16 MiB; it is watched.'),
});

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
      push: z
        .array(push)
        .max(100)
        .default([])
        .describe(
          'Files that OPA is given at start, in this order, whenever one changes, and again when it was started anew and has lost them. Checks are denied until it has all of them.',
        ),
      spiffe_ids: z
        .array(spiffeId())
        .max(100)
        .default([])
        .describe(
          'Who the OPA of an https url has to be: a server with an X.509-SVID of one of these, to which we show our default one. None: Web PKI.',
        ),
    })
    .prefault({}),
  bundle: bundles.optional(),
});

export type PolicyConfig = Readonly<{
  engine: 'opa' | 'wasm';
  timeoutMs: number;
  /** Without IDs the OPA of an https url proves itself by the Web PKI. */
  opa: Readonly<{
    url: string;
    spiffeIds: readonly SpiffeId[];
    /** `target` is OPA's id of a policy, or the path of a document. */
    push: readonly Readonly<{ kind: 'policy' | 'data'; target: string; file: string }>[];
  }>;
  /** At least one whenever `engine` is wasm and ext_authz is on; names are unique. */
  bundles: readonly BundleConfig[];
}>;

export function buildPolicy(options: z.output<typeof policy>, resolve: ResolveFile): PolicyConfig {
  const { engine, timeout: timeoutMs, opa, bundle } = options;
  return {
    engine,
    timeoutMs,
    opa: {
      url: opa.url,
      spiffeIds: opa.spiffe_ids,
      push: opa.push.map(({ policy: id, data = '', file: path }) => ({
        ...(id === undefined ? { kind: 'data', target: data } : { kind: 'policy', target: id }),
        file: resolve(path),
      })),
    },
    bundles: buildBundles(bundle, resolve),
  };
}
