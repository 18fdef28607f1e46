import { z } from 'zod';
import { messageOf } from '../runtime/errors.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import {
  checked,
  duration,
  endpointAddress,
  engineUrl,
  file,
  fileMode,
  fileName,
  hostPort,
  httpsUrl,
  idPattern,
  idTemplate,
  jwksUrl,
  listenAddress,
  name,
  secretFileMode,
  serviceUrl,
  size,
  spiffeId,
  tlsListenAddress,
  tokenHeader,
  trustDomain,
} from './fields.ts';

const decisionPath = () => z.string().max(1024);

const pointer = () =>
  checked(['JSON pointer', '/input/parsed_body/pin'], (text) => {
    if (!/^\/(?:input|result)(?:\/(?:[^~/]|~[01])*)*$/.test(text)) {
      throw new Error('must be a JSON pointer into /input or /result, such as /input/parsed_body/pin');
    }
  });

const inputShape = () => z.enum(['envoy', 'agentvault', 'agentweave']);

function checkTrustDomains(files: Readonly<Record<string, string>>, context: z.RefinementCtx): void {
  for (const key of Object.keys(files)) {
    try {
      if (parseTrustDomain(key) !== key) throw new Error('must be a bare name, without spiffe://');
    } catch (error) {
      context.addIssue({ code: 'custom', message: messageOf(error), path: [key] });
    }
  }
}

const identity = z.strictObject({
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

const sds = z.strictObject({
  enabled: z.boolean().default(true).describe('Serves SVIDs and bundles to Envoy over SDS.'),
  default_svid_name: name().prefault('default').describe('The secret name that means the default SVID.'),
  default_bundle_name: name()
    .prefault('ROOTCA')
    .describe('The secret name that means the bundle of the own trust domain.'),
  default_all_bundles_name: name()
    .prefault('ALL')
    .describe('The secret name that means every bundle held, own and federated.'),
  spiffe_validator: z
    .boolean()
    .default(true)
    .describe(
      "Bundles are sent for Envoy's SPIFFE validator; false sends a plain trusted_ca. Node metadata disable_spiffe_cert_validation overrides it per Envoy.",
    ),
  default_svid_hint: name()
    .optional()
    .describe('Picks the default SVID by its hint; without it the first SVID is the default.'),
  jwt_audiences: z
    .array(name())
    .max(100)
    .default([])
    .describe(
      'Audiences for which a JWT-SVID of the default identity is served, as the generic secret `jwt:AUDIENCE`.',
    ),
  unknown_names: z
    .enum(['wait', 'reject'])
    .default('wait')
    .describe(
      'For a secret name that nothing is known of: wait sends it when it appears, reject ends the stream with INVALID_ARGUMENT.',
    ),
});

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

const extAuthz = z.strictObject({
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
          'The peer is whom x-forwarded-client-cert names last; only behind an Envoy that sanitizes that header.',
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

const policy = z.strictObject({
  engine: z
    .enum(['opa', 'wasm'])
    .default('opa')
    .describe('Who decides: an OPA server, or an OPA bundle run inside this process.'),
  timeout: duration('1ms', '60s').prefault('150ms').describe('Bounds the whole Check.'),
  opa: z
    .strictObject({
      url: engineUrl().prefault('http://127.0.0.1:8181').describe('The OPA server.'),
    })
    .prefault({}),
  bundle: z
    .strictObject({
      file: file().describe('Engine wasm: a bundle built with `opa build -t wasm`; it is watched.'),
      verification_key: file()
        .optional()
        .describe(
          'A public key in PEM (RSA or EC). With it a bundle has to be signed by this key, as `opa sign` does; without it a signed bundle is refused.',
        ),
    })
    .optional(),
});

const federation = z.strictObject({
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

const output = z.strictObject({
  directory: file().describe(
    'Where the files are; made with mode 0755 when it is missing. Nobody but us and root may write to it.',
  ),
  certificate: fileName().prefault('svid.pem').describe('The X.509-SVID in PEM, leaf first.'),
  private_key: fileName().prefault('svid.key').describe('Its key in PEM, PKCS#8.'),
  bundle: fileName().prefault('bundle.pem').describe('The bundle of the own trust domain in PEM.'),
  federated: z
    .boolean()
    .default(false)
    .describe('Also writes federated/TRUST_DOMAIN.pem for each other trust domain held.'),
  mode: fileMode().prefault('0644').describe('Permission bits of certificates and bundles.'),
  secret_mode: secretFileMode().prefault('0600').describe('Permission bits of the key and of tokens.'),
  jwt: z
    .array(
      z.strictObject({
        audience: name().describe('Whom the JWT-SVID is for.'),
        file: fileName().describe('The file that holds it, and nothing else.'),
      }),
    )
    .max(100)
    .default([])
    .describe('JWT-SVIDs of the default identity, renewed in time.'),
  signal: z
    .strictObject({
      pid_file: file().describe(
        'Holds the process ID; must belong to us or root and be writable by nobody else.',
      ),
      name: z
        .enum(['SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGINT', 'SIGTERM', 'SIGQUIT'])
        .default('SIGHUP')
        .describe('What is sent to it after each new set.'),
    })
    .optional(),
});

/**
 * Every option of the program, once: its type, default, bounds and a sentence about it. Parsing turns the file's text
 * (`10s`, `4MiB`, `unix:///…`) into values, and `z.encode` turns them back, so this is also what `validate` prints.
 * docs/config.md is generated from here.
 */
export const schema = z.strictObject({
  identity: identity.prefault({}),
  trust_domain: trustDomain()
    .optional()
    .describe('The trust domain that SVIDs must be of; another one is never used. It admits nobody.'),
  listen: listenAddress()
    .prefault('unix:///run/svidecar/svidecar.sock')
    .describe('The gRPC socket: SDS, ext_authz and health.'),
  listen_mode: fileMode()
    .prefault('0660')
    .describe('Permission bits of the unix sockets that Envoy connects to.'),
  sds: sds.prefault({}),
  ext_authz: extAuthz.prefault({}),
  policy: policy.prefault({}),
  federation: federation.prefault({}),
  outputs: z
    .array(output)
    .max(100)
    .default([])
    .describe('Directories of files for programs that cannot speak SDS.'),
  admin: z
    .strictObject({
      listen: hostPort().prefault('127.0.0.1:9902').describe('The admin HTTP server.'),
      allow_jwt_svid: z
        .boolean()
        .default(false)
        .describe('Gives JWT-SVIDs of the default identity to every client of a loopback admin server.'),
      probe_listen: hostPort()
        .optional()
        .describe('A second server with /live, /ready, /health and /metrics only, for kubelets.'),
    })
    .prefault({}),
  decision_log: z
    .strictObject({
      console: z.boolean().default(true).describe('Writes one line per decision to standard output.'),
      mask: z
        .array(pointer())
        .max(1000)
        .default(['/input/attributes/request/http/headers/authorization'])
        .describe('JSON pointers into the decision line that are redacted, beside those that always are.'),
      service: z
        .strictObject({
          url: serviceUrl()
            .optional()
            .describe('Where records are posted too: JSON arrays, gzip, as OPA sends its decision log.'),
        })
        .prefault({}),
      sample: z
        .number()
        .min(0)
        .max(1)
        .default(1)
        .describe('The share of allows that is recorded; denials and failures always are.'),
    })
    .prefault({}),
  log: z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error'])
        .default('info')
        .describe('The lowest level that is written.'),
    })
    .prefault({}),
});

/** What a config file may say once parsed, in the file's own names. */
export type Options = z.output<typeof schema>;

/** Parses a tree of plain data; `message` words what zod finds. */
export function parseWith(tree: unknown, message: z.core.$ZodErrorMap) {
  return schema.safeParse(tree, { error: message });
}

/** The options in the file's terms again. */
export function encodeOptions(options: Options): unknown {
  return z.encode(schema, options);
}
