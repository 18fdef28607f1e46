import { z } from 'zod';
import type { JsonValue } from '../runtime/json-value.ts';
import type { IdTemplate } from '../spiffe/id-template.ts';
import { decisionPath, idTemplate, inputShape, jwksUrl, name, tokenHeader } from './fields.ts';

export type InputShape = 'envoy' | 'agentvault' | 'agentweave';

/** Which requests an entry is for. */
const requestMatch = z.strictObject({
  peer: z
    .string()
    .min(1)
    .max(2048)
    .optional()
    .describe('Pattern of the peer SPIFFE ID; `:name` is one segment, `*` anything.'),
  method: z.array(z.string().min(1).max(64)).min(1).max(32).optional().describe('HTTP methods, any of them.'),
  path: z.string().min(1).max(4096).optional().describe('Pattern of the path without its query string.'),
  host: z
    .string()
    .min(1)
    .max(255)
    .optional()
    .describe('Pattern of the host, in lower case and without port.'),
  context: z
    .record(z.string().min(1).max(256), z.string().max(4096))
    .optional()
    .describe('Context extensions of the route, each equal to the value here.'),
});

/** One entry of `queries`. */
export const query = z.strictObject({
  match: requestMatch
    .prefault({})
    .describe('All keys given must match; a key that the request lacks does not match.'),
  path: decisionPath().optional().meta({ otherwise: '`ext_authz.path`', description: 'OPA decision.' }),
  cache_key: z
    .array(
      z
        .string()
        .max(256)
        .regex(
          /^(?:peer|method|path|host|body|context\..+|header\..+)$/,
          'must be peer, method, path, host, body, context.NAME or header.NAME',
        ),
    )
    .min(1)
    .max(64)
    .optional()
    .describe(
      'Everything that the decision depends on: peer, method, path (with its query), host, body, context.NAME, header.NAME. Without it no decision is cached.',
    ),
  input: inputShape()
    .optional()
    .meta({ otherwise: '`ext_authz.input`', description: 'Shape of the policy input.' }),
  dry_run: z
    .boolean()
    .default(false)
    .describe('Policy denials and engine failures of this query are logged and let through.'),
  set: z
    .record(z.string().min(1).max(256), z.json())
    .optional()
    .describe('Constants put into the input; `{name}` in a text is what `:name` matched.'),
});

/** One entry of `inject_jwt_svid`. */
export const injection = z.strictObject({
  match: requestMatch.prefault({}).describe('Which requests; as for queries.'),
  audience: name().describe('The audience of the JWT-SVID.'),
  header: tokenHeader().prefault('authorization').describe('Any header of that name is replaced.'),
  scheme: z
    .string()
    .regex(/^[A-Za-z0-9-]{0,32}$/, 'must be letters, digits and dashes')
    .default('Bearer')
    .describe('Stands before the token; in quotes and empty for none.'),
});

/** One entry of `bridge`. */
export const bridge = z.strictObject({
  match: requestMatch
    .omit({ peer: true })
    .prefault({})
    .describe('Which requests; as for queries, but the bridge says who the peer is.'),
  jwks_url: jwksUrl().describe('Where the keys of the issuer are.'),
  issuer: z.string().min(1).max(2048).describe('What `iss` must be.'),
  audience: z.string().min(1).max(2048).describe('What `aud` must name.'),
  header: tokenHeader()
    .prefault('authorization')
    .describe('Where the JWT comes in, and the JWT-SVID takes its place.'),
  spiffe_id: idTemplate().describe('Whom the JWT stands for; `{sub}` is its subject, one segment.'),
  mint_audience: name().describe('The audience of the JWT-SVID.'),
});

/** One entry of `shadow`. */
export const shadow = z.strictObject({
  match: requestMatch.prefault({}).describe('Which requests; as for queries.'),
  path: decisionPath().min(1).describe('OPA decision, asked with the input of the query.'),
});

/** A `match`, as the policy room compiles it. */
export type MatchConfig = Readonly<{
  peer?: string | undefined;
  method?: readonly string[] | undefined;
  path?: string | undefined;
  host?: string | undefined;
  context?: Readonly<Record<string, string>> | undefined;
}>;

/** One entry of `ext_authz.inject_jwt_svid`; the header in lower case. */
export type InjectionConfig = Readonly<{
  match: MatchConfig;
  audience: string;
  header: string;
  scheme: string;
}>;

/** One entry of `ext_authz.bridge`; the header in lower case. */
export type BridgeConfig = Readonly<{
  match: MatchConfig;
  jwksUrl: string;
  issuer: string;
  audience: string;
  header: string;
  spiffeId: IdTemplate;
  mintAudience: string;
}>;

/** One entry of `ext_authz.queries`, as the policy room compiles it. */
export type QueryConfig = Readonly<{
  match: MatchConfig;
  path: string | undefined;
  input: InputShape | undefined;
  dryRun: boolean;
  cacheKey: readonly string[] | undefined;
  set: Readonly<Record<string, JsonValue>> | undefined;
}>;

export function buildQuery(options: z.output<typeof query>): QueryConfig {
  const { match, path, input, dry_run: dryRun, cache_key: cacheKey, set } = options;
  return { match, path, input, dryRun, cacheKey, set };
}

export function buildBridge(options: z.output<typeof bridge>): BridgeConfig {
  const { match, jwks_url: jwksUrl, issuer, audience, header, spiffe_id: spiffeId } = options;
  return { match, jwksUrl, issuer, audience, header, spiffeId, mintAudience: options.mint_audience };
}
