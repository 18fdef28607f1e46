import { z } from 'zod';
import {
  decisionPath,
  duration,
  file,
  idPattern,
  idTemplate,
  inputShape,
  jwksUrl,
  name,
  size,
  spiffeId,
  tlsListenAddress,
  tokenHeader,
} from './fields.ts';

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

const query = z.strictObject({
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

const injection = z.strictObject({
  match: requestMatch.prefault({}).describe('Which requests; as for queries.'),
  audience: name().describe('The audience of the JWT-SVID.'),
  header: tokenHeader().prefault('authorization').describe('Any header of that name is replaced.'),
  scheme: z
    .string()
    .regex(/^[A-Za-z0-9-]{0,32}$/, 'must be letters, digits and dashes')
    .default('Bearer')
    .describe('Stands before the token; in quotes and empty for none.'),
});

const bridge = z.strictObject({
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

const shadow = z.strictObject({
  match: requestMatch.prefault({}).describe('Which requests; as for queries.'),
  path: decisionPath().min(1).describe('OPA decision, asked with the input of the query.'),
});

/** Who may pass, and who is asked. */
export const extAuthz = z.strictObject({
  enabled: z.boolean().default(true).describe("Answers Envoy's ext_authz Checks."),
  listen: tlsListenAddress()
    .optional()
    .meta({ otherwise: 'the socket of `listen`', description: 'A socket of its own for ext_authz.' }),
  path: decisionPath()
    .default('envoy/authz/allow')
    .describe('OPA decision when no query matches; in quotes and empty, such a request is denied.'),
  input: inputShape().default('envoy').describe('Shape of the policy input when no query matches.'),
  queries: z
    .array(query)
    .max(1000)
    .default([])
    .describe('The first match picks decision path, input shape and constants.'),
  peer: z
    .strictObject({
      require: z
        .boolean()
        .default(true)
        .describe('A request without a SPIFFE ID is denied and policy is not asked.'),
      verify_certificate: z
        .enum(['required', 'when_present', 'off'])
        .default('when_present')
        .describe(
          'Whether source.certificate is checked against the live bundles, and whether it must be there.',
        ),
      trust_xfcc: z
        .boolean()
        .default(false)
        .describe(
          'The peer is whom x-forwarded-client-cert names last; only behind an Envoy that sanitizes that header, and sends `cert` in it if it admits other trust domains.',
        ),
      jwt_svid: z
        .strictObject({
          header: tokenHeader().prefault('authorization').describe('Where the JWT-SVID stands.'),
          audiences: z
            .array(name())
            .max(100)
            .default([])
            .describe(
              'A request without a SPIFFE ID of its connection may show a JWT-SVID for one of these; none turns that off.',
            ),
        })
        .prefault({}),
      allowed_identities: z.array(idPattern()).max(1000).optional().meta({
        otherwise: 'every ID of the own trust domain',
        description: 'Patterns of the SPIFFE IDs that may pass; in a path `*` spans segments.',
      }),
      denied_identities: z
        .array(idPattern())
        .max(1000)
        .default([])
        .describe('Patterns of the SPIFFE IDs that are denied, whatever else is said of them.'),
      denied_identities_file: file()
        .optional()
        .describe(
          'More of them, one pattern a line; the file is watched and a new line is in force within a second.',
        ),
    })
    .prefault({}),
  dry_run: z
    .boolean()
    .default(false)
    .describe('Policy denials and engine failures are logged and let through; identity rules stay in force.'),
  on_failure: z
    .enum(['deny', 'error'])
    .default('deny')
    .describe('What an engine failure becomes: a denial, or an error response (Envoy 1.37 or newer).'),
  header_mode: z
    .enum(['overwrite', 'opa_envoy_plugin'])
    .default('overwrite')
    .describe(
      'How headers set by policy meet those present; opa_envoy_plugin sends them as that plugin does.',
    ),
  inject_jwt_svid: z
    .array(injection)
    .max(1000)
    .default([])
    .describe(
      'Requests let through are given a JWT-SVID of the default identity; without one they are denied.',
    ),
  bridge: z
    .array(bridge)
    .max(100)
    .default([])
    .describe('The JWT of another issuer comes in, a JWT-SVID of the SPIFFE ID it stands for goes on.'),
  shadow: z
    .array(shadow)
    .max(100)
    .default([])
    .describe('Decisions that are asked for and logged beside those of queries, and decide nothing.'),
  tls: z
    .strictObject({
      client_spiffe_ids: z
        .array(spiffeId())
        .max(100)
        .default([])
        .describe(
          'Makes ext_authz.listen, a tcp socket of its own, mTLS with our default X.509-SVID; only these clients of our own trust domain may connect. None: no TLS.',
        ),
    })
    .prefault({}),
  limits: z
    .strictObject({
      max_message_bytes: size('64KiB', '64MiB').prefault('4MiB').describe('The largest Check that is read.'),
      max_concurrent: z
        .int()
        .min(1)
        .max(100_000)
        .default(1000)
        .describe('Checks in flight; one more is answered 503 at once.'),
      reflection: z
        .boolean()
        .default(false)
        .describe(
          'Server reflection of gRPC (v1 and v1alpha) on `listen` and `ext_authz.listen`: the services there and their messages.',
        ),
    })
    .prefault({}),
  cache: z
    .strictObject({
      ttl: duration('0s', '1h')
        .prefault('0s')
        .describe(
          'How long decisions of queries with a cache_key are kept; 0s: not at all. Only with engine wasm.',
        ),
      max_entries: z.int().min(1).max(1_000_000).default(10_000).describe('How many are kept.'),
    })
    .prefault({}),
  rate_limit: z
    .strictObject({
      requests_per_second: z
        .number()
        .min(0)
        .max(1_000_000)
        .default(0)
        .describe(
          'Requests of one SPIFFE ID; more are answered 429 with Retry-After. 0: as many as it likes.',
        ),
      burst: z
        .int()
        .min(0)
        .max(1_000_000)
        .default(0)
        .describe('How many of them may come at once; 0: as many as in a second, and at least one.'),
    })
    .prefault({}),
  body: z
    .strictObject({
      parse: z.boolean().default(true).describe('Fills parsed_body of the policy input.'),
      max_bytes: size('0B', '32MiB')
        .prefault('1MiB')
        .describe('The largest body that is parsed; `bootstrap` has Envoy send no more than this.'),
      proto_descriptor: file()
        .optional()
        .describe(
          'A FileDescriptorSet, written by protoc with --include_imports, by which bodies of gRPC requests are parsed.',
        ),
    })
    .prefault({}),
});
