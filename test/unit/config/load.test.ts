import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type ConfigInput, describeConfig, type LoadedConfig, loadConfig } from '../../../src/config/load.ts';
import { AppError, ConfigError } from '../../../src/runtime/errors.ts';

const load = (text: string, input: Partial<ConfigInput> = {}) =>
  loadConfig({ text, path: '/etc/svidecar/config.yaml', env: {}, ...input });

const problemsOf = (text: string, input: Partial<ConfigInput> = {}): readonly string[] => {
  try {
    load(text, input);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
  return [];
};

describe('loadConfig', () => {
  it('fills in every default of the contract', () => {
    const { config, warnings } = load('');
    assert.deepEqual(warnings, []);
    assert.equal(config.identity.source, 'workload_api');
    assert.equal(config.identity.workloadApi.address, 'unix:///run/spire/sockets/agent.sock');
    assert.equal(config.identity.workloadApi.onPermissionDenied, 'drop');
    assert.equal(config.identity.dev, undefined);
    assert.deepEqual(config.listen, { kind: 'unix', path: '/run/svidecar/svidecar.sock' });
    assert.equal(config.listenMode, 0o660);
    assert.deepEqual(config.sds, {
      enabled: true,
      defaultSvidName: 'default',
      defaultBundleName: 'ROOTCA',
      defaultAllBundlesName: 'ALL',
      spiffeValidator: true,
      defaultSvidHint: undefined,
      jwtAudiences: [],
      unknownNames: 'wait',
    });
    assert.equal(config.extAuthz.path, 'envoy/authz/allow');
    assert.deepEqual(config.extAuthz.peer, {
      require: true,
      verifyCertificate: 'when_present',
      trustXfcc: false,
      jwtSvid: { header: 'authorization', audiences: [] },
      allowedIdentities: undefined,
      deniedIdentities: [],
      deniedIdentitiesFile: undefined,
    });
    assert.equal(config.extAuthz.onFailure, 'deny');
    assert.deepEqual(config.extAuthz.limits, {
      maxMessageBytes: 4 * 1024 * 1024,
      maxConcurrent: 1000,
      reflection: false,
    });
    assert.deepEqual(config.extAuthz.body, {
      parse: true,
      maxBytes: 1024 * 1024,
      protoDescriptor: undefined,
    });
    assert.deepEqual(config.policy, {
      engine: 'opa',
      timeoutMs: 150,
      opa: { url: 'http://127.0.0.1:8181', spiffeIds: [], push: [] },
      bundles: [],
    });
    assert.deepEqual(config.admin, {
      listen: { host: '127.0.0.1', port: 9902 },
      allowJwtSvid: false,
      probeListen: undefined,
    });
    assert.deepEqual(config.log, { level: 'info' });
    assert.deepEqual(config.outputs, []);
  });

  it('fills in an output, and resolves what it names', () => {
    const { config } = load('outputs: [{directory: svid, signal: {pid_file: app.pid}}]');
    assert.deepEqual(config.outputs, [
      {
        directory: '/etc/svidecar/svid',
        certificate: 'svid.pem',
        privateKey: 'svid.key',
        bundle: 'bundle.pem',
        federated: false,
        mode: 0o644,
        secretMode: 0o600,
        jwt: [],
        signal: { pidFile: '/etc/svidecar/app.pid', name: 'SIGHUP' },
      },
    ]);
  });

  it('gives the embedded CA one identity when none is named', () => {
    const { config } = load('identity: {source: dev, dev: {trust_domain: a.example}}');
    assert.deepEqual(config.identity.dev, {
      trustDomain: 'a.example',
      spiffeIds: ['spiffe://a.example/service/web'],
      svidTtlMs: 3_600_000,
      jwtSvidTtlMs: 300_000,
      serveWorkloadApi: undefined,
    });
    assert.equal(load('identity: {source: dev}').config.identity.dev?.trustDomain, 'dev.local');
  });

  it('resolves file names against the folder of the config file', () => {
    const text = 'policy: {engine: wasm, bundle: {file: ../b.tar.gz}}';
    const fileOf = ({ config }: LoadedConfig) => config.policy.bundles[0]?.from;
    assert.deepEqual(fileOf(load(text)), { kind: 'file', file: '/etc/b.tar.gz' });
    assert.deepEqual(fileOf(load(text, { path: undefined })), { kind: 'file', file: '../b.tar.gz' });
    const absolute = load('policy: {bundle: {file: /x/b.tar.gz}}');
    assert.deepEqual(fileOf(absolute), { kind: 'file', file: '/x/b.tar.gz' });
  });

  it('takes one bundle or a list of them, and names a single one', () => {
    const [one] = load('policy: {bundle: {file: /b}}').config.policy.bundles;
    const from = { kind: 'file', file: '/b' };
    assert.deepEqual(one, { name: 'policy', at: 'policy.bundle', from, verificationKey: undefined });
    const text = 'policy: {bundle: [{name: a, file: /a, verification_key: /k}]}';
    assert.deepEqual(
      load(text).config.policy.bundles.map(({ name, at }) => [name, at]),
      [['a', 'policy.bundle[0]']],
    );
    assert.deepEqual(load(describeConfig(load(text).options)).config, load(text).config);
  });

  it('refuses a variable for a list of bundles', () => {
    const text = 'policy: {bundle: [{name: a, file: /a}]}';
    assert.deepEqual(problemsOf(text, { env: { SVIDECAR_POLICY_BUNDLE_FILE: '/b' } }), [
      'policy.bundle.file: cannot be set, because policy.bundle is a list in the file (from SVIDECAR_POLICY_BUNDLE_FILE)',
    ]);
  });

  it('freezes the config all the way down', () => {
    const { config } = load('ext_authz: {queries: [{set: {resource: {owner: x}}}]}');
    const walk = (value: unknown): void => {
      if (typeof value !== 'object' || value === null) return;
      assert.ok(Object.isFrozen(value));
      Object.values(value).forEach(walk);
    };
    walk(config);
  });

  it('lets flags override the environment, and the environment the file', () => {
    const text = 'admin: {listen: "127.0.0.1:1"}';
    const env = { SVIDECAR_ADMIN_LISTEN: '127.0.0.1:2' };
    const flags = { 'admin.listen': '127.0.0.1:3' };
    assert.equal(load(text).config.admin.listen.port, 1);
    assert.equal(load(text, { env }).config.admin.listen.port, 2);
    assert.equal(load(text, { env, flags }).config.admin.listen.port, 3);
  });

  it('takes the Workload API from flag, variable, file, SPIFFE_ENDPOINT_SOCKET, default, in this order', () => {
    const text = 'identity: {workload_api: {address: "unix:///file"}}';
    const standard = { SPIFFE_ENDPOINT_SOCKET: 'unix:///standard' };
    const own = { ...standard, SVIDECAR_IDENTITY_WORKLOAD_API_ADDRESS: 'unix:///own' };
    const flags = { 'identity.workload_api.address': 'unix:///flag' };
    const address = (...input: Parameters<typeof load>): string =>
      load(...input).config.identity.workloadApi.address;
    assert.equal(address('', { env: standard }), 'unix:///standard');
    assert.equal(address(text, { env: standard }), 'unix:///file');
    assert.equal(address('identity: {workload_api: {address: }}', { env: standard }), 'unix:///standard');
    assert.equal(address(text, { env: own }), 'unix:///own');
    assert.equal(address(text, { env: own, flags }), 'unix:///flag');
  });

  it('lets SPIFFE_TRUST_DOMAIN and TLS_MODE win over the file', () => {
    const text = 'trust_domain: file.example\nidentity: {source: dev}';
    const { config } = load(text, { env: { SPIFFE_TRUST_DOMAIN: 'env.example', TLS_MODE: 'spiffe' } });
    assert.equal(config.trustDomain, 'env.example');
    assert.equal(config.identity.source, 'workload_api');
    const files = 'files: {certificate: a, private_key: b, bundle: c}';
    const both = `identity: {source: workload_api, ${files}}`;
    assert.equal(load(both).config.identity.source, 'workload_api');
    assert.equal(load(both).config.identity.files, undefined);
    const switched = load(both, { env: { TLS_MODE: 'file' } }).config.identity;
    assert.equal(switched.source, 'files');
    assert.equal(switched.files?.privateKey, '/etc/svidecar/b');
    assert.deepEqual(problemsOf('', { env: { TLS_MODE: 'file' } }), [
      'identity.files: is required with identity.source: files (TLS_MODE=file): certificate, private_key and bundle',
    ]);
    assert.deepEqual(problemsOf(both, { env: { TLS_MODE: 'files' } }), [
      'identity.source: TLS_MODE must be spiffe or file, not "files"',
    ]);
  });

  it('takes identity files from the file and its folder, or from variables', () => {
    const text = `identity:
  source: files
  files: {certificate: svid.pem, private_key: /abs/svid.key, bundle: b.json, federated_bundles: {partner.example: p.pem}}`;
    assert.deepEqual(load(text, { path: '/etc/svidecar/config.yaml' }).config.identity.files, {
      certificate: '/etc/svidecar/svid.pem',
      privateKey: '/abs/svid.key',
      bundle: '/etc/svidecar/b.json',
      federatedBundles: [{ trustDomain: 'partner.example', file: '/etc/svidecar/p.pem' }],
    });
    const env = {
      TLS_MODE: 'file',
      SVIDECAR_IDENTITY_FILES_CERTIFICATE: '/c',
      SVIDECAR_IDENTITY_FILES_PRIVATE_KEY: '/k',
      SVIDECAR_IDENTITY_FILES_BUNDLE: '/b',
    };
    assert.equal(load('', { env }).config.identity.files?.bundle, '/b');
    assert.deepEqual(
      problemsOf(
        'identity: {source: files, files: {certificate: a, federated_bundles: {Partner: p, "spiffe://x.example": q, y.example: 5}}}',
      ),
      [
        'identity.files.private_key: is required',
        'identity.files.bundle: is required',
        'identity.files.federated_bundles.y.example: must be text: a file such as bundle.tar.gz',
      ],
    );
    const names = 'certificate: a, private_key: b, bundle: c';
    assert.deepEqual(
      problemsOf(
        `identity: {source: files, files: {${names}, federated_bundles: {Partner: p, "spiffe://x.example": q}}}`,
      ),
      [
        'identity.files.federated_bundles.Partner: trust domain contains upper case',
        'identity.files.federated_bundles.spiffe://x.example: must be a bare name, without spiffe://',
      ],
    );
  });

  it('lets a flag settle what two variables say differently', () => {
    const env = { SPIFFE_TRUST_DOMAIN: 'a.example', SVIDECAR_TRUST_DOMAIN: 'b.example' };
    assert.throws(() => loadConfig({ env }), /say different things/);
    assert.equal(loadConfig({ env, flags: { trust_domain: 'c.example' } }).config.trustDomain, 'c.example');
  });

  it('reports every problem at once, each with its key path', () => {
    const problems = problemsOf(
      `listne: x
listen: tcp://0.0.0.0:99
listen_mode: 0660
identity: {source: files, files: {certificate: a, private_key: b, bundle: c, cert: d}}
sds: {default_svid_name: ALL}
ext_authz:
  rate_limit: {requests_per_second: -5}
  max_bytes: 1MiB
  body: {max_bytes: 8MiB}
  peer: {require: "yes", allowed_identities: ["spiffe://*/x"]}
  queries:
    - {mach: {}, cache_key: [poor], match: {method: GET}}
    - 5
policy: {engine: wasm, timeout: 150, opa: {url: "http://u:p@opa"}}
admin: 5
`,
    );
    assert.deepEqual([...problems].sort(), [
      'admin: must be a section with keys of its own',
      'ext_authz.body.max_bytes: must be less than ext_authz.limits.max_message_bytes (4MiB), because a Check holds more than the body',
      'ext_authz.max_bytes: is not a known key here; ext_authz.body.max_bytes is',
      'ext_authz.peer.allowed_identities[0]: pattern has a * in the trust domain, which must be literal',
      'ext_authz.peer.require: must be true or false',
      'ext_authz.queries[0].cache_key[0]: must be peer, method, path, host, body, context.NAME or header.NAME',
      'ext_authz.queries[0].mach: is not a known key; did you mean match?',
      'ext_authz.queries[0].match.method: must be a list',
      'ext_authz.queries[1]: must be a section with keys of its own',
      'ext_authz.rate_limit.requests_per_second: must be at least 0',
      'identity.files.cert: is not a known key; known here: certificate, private_key, bundle, federated_bundles',
      'listen: must be on loopback when it is tcp, such as tcp://127.0.0.1:9901',
      'listen_mode: must be text: a file mode such as "0660"',
      'listne: is not a known key; did you mean listen?',
      'policy.bundle: is required with policy.engine: wasm: a file or a url',
      'policy.opa.url: must not contain a user name or password',
      'policy.timeout: must be text: a duration such as 10s',
      'sds: default_svid_name, default_bundle_name and default_all_bundles_name must differ',
    ]);
  });

  it('warns of a socket that gives private keys to everybody', () => {
    const warnings = (text: string): readonly string[] => load(text).warnings;
    assert.deepEqual(warnings('listen_mode: "0666"'), [
      'listen_mode 0666 lets every user of this machine fetch private keys over SDS',
    ]);
    assert.deepEqual(warnings('listen_mode: "0666"\nsds: {enabled: false}'), []);
    assert.deepEqual(warnings('listen_mode: "0770"'), []);
  });

  it('says where a bad value came from when it was not the file', () => {
    const env = { SVIDECAR_POLICY_TIMEOUT: 'soon' };
    const flags = { 'admin.listen': 'localhost:1' };
    assert.deepEqual(problemsOf('', { env, flags }), [
      'policy.timeout: must be a duration such as 150ms, 10s or 1h (from SVIDECAR_POLICY_TIMEOUT)',
      'admin.listen: must be an IP address and a port, such as 127.0.0.1:9902 or [::1]:9902 (from command line)',
    ]);
  });

  const crossed: readonly [string, string, string][] = [
    [
      'an embedded CA that nobody asked for',
      'identity: {dev: {trust_domain: a.example}}',
      'identity.dev: is an embedded CA and only allowed with identity.source: dev',
    ],
    [
      'a dev identity of another trust domain',
      'identity: {source: dev, dev: {spiffe_ids: ["spiffe://b.example/x"]}}',
      'identity.dev.spiffe_ids[0]: is not of the trust domain dev.local that identity.dev issues for',
    ],
    [
      'a dev identity without a path',
      'identity: {source: dev, dev: {spiffe_ids: ["spiffe://dev.local"]}}',
      'identity.dev.spiffe_ids[0]: has no path; only an authority may stand for the trust domain itself',
    ],
    [
      'a dev identity that is there twice',
      'identity: {source: dev, dev: {spiffe_ids: ["spiffe://dev.local/a", "spiffe://dev.local/a"]}}',
      'identity.dev.spiffe_ids[1]: is there twice',
    ],
    [
      'an asserted trust domain that the embedded CA is not of',
      'trust_domain: a.example\nidentity: {source: dev}',
      'trust_domain: is another one than identity.dev.trust_domain',
    ],
    [
      'one socket for two servers',
      'admin: {listen: "127.0.0.1:1", probe_listen: "127.0.0.1:1"}',
      'admin.probe_listen: is the same socket as admin.listen',
    ],
    [
      'a program with nothing to do',
      'sds: {enabled: false}\next_authz: {enabled: false}',
      ': sds.enabled and ext_authz.enabled are both false and there are no outputs, so there is nothing to do',
    ],
    [
      'JWT-SVIDs on an admin server off loopback',
      'admin: {listen: "0.0.0.0:9902", allow_jwt_svid: true}',
      'admin.allow_jwt_svid: must be false, because admin.listen (0.0.0.0:9902) is not on loopback',
    ],
    [
      'a key that others may read',
      'outputs: [{directory: /run/svid, secret_mode: "0604"}]',
      'outputs[0].secret_mode: must give no permission to others, such as "0600" or "0640"',
    ],
    [
      'two outputs in one directory',
      'outputs: [{directory: /run/svid}, {directory: /run/x/../svid/}]',
      'outputs[1].directory: is the same as that of outputs[0]',
    ],
    [
      'two files of one name',
      'outputs: [{directory: /run/svid, jwt: [{audience: a, file: svid.key}]}]',
      'outputs[0].jwt[0].file: is the same name as private_key',
    ],
    [
      'a file in the place of the federated bundles',
      'outputs: [{directory: /run/svid, federated: true, bundle: federated}]',
      'outputs[0].bundle: is the same name as the directory of federated bundles',
    ],
    [
      'a file outside the directory of its output',
      'outputs: [{directory: /run/svid, certificate: ../svid.pem}]',
      'outputs[0].certificate: must be the name of a file, without a directory, and not begin with ..',
    ],
    [
      'JWT-SVIDs from files',
      'identity: {source: files, files: {certificate: a, private_key: b, bundle: c}}\noutputs: [{directory: /run/svid, jwt: [{audience: a, file: t}]}]',
      'outputs[0].jwt: needs an identity source that issues JWT-SVIDs, which identity.source: files does not',
    ],
    [
      'a signal that cannot be handled',
      'outputs: [{directory: /run/svid, signal: {pid_file: app.pid, name: SIGKILL}}]',
      'outputs[0].signal.name: must be one of SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGTERM, SIGQUIT',
    ],
    [
      'a mask that leads nowhere in a decision',
      'decision_log: {mask: [/attributes/x]}',
      'decision_log.mask[0]: must be a JSON pointer into /input or /result, such as /input/parsed_body/pin',
    ],
    ['a bundle without a file', 'policy: {bundle: {}}', 'policy.bundle: needs a file or a url'],
    [
      'a listed bundle without a file',
      'policy: {bundle: [{name: a}]}',
      'policy.bundle[0]: needs a file or a url',
    ],
    [
      'a bundle that is text',
      'policy: {bundle: b.tar.gz}',
      'policy.bundle: must be a section with keys of its own',
    ],
    ['an empty list of bundles', 'policy: {bundle: []}', 'policy.bundle: must have at least 1 item'],
    [
      'a listed bundle that is text',
      'policy: {bundle: [b.tar.gz]}',
      'policy.bundle[0]: must be a section with keys of its own',
    ],
    [
      'a listed bundle without a name',
      'policy: {bundle: [{file: b}]}',
      'policy.bundle[0].name: is required in a list of bundles',
    ],
    [
      'two bundles of one name',
      'policy: {bundle: [{name: a, file: b}, {name: a, file: c}]}',
      'policy.bundle[1].name: is the name of policy.bundle[0] too',
    ],
    [
      'a bundle name that no log could show',
      'policy: {bundle: [{name: "a b", file: b}]}',
      'policy.bundle[0].name: must be 1 to 64 letters, digits, dots, hyphens or underscores, and not . or ..',
    ],
    [
      'an unknown key of a listed bundle',
      'policy: {bundle: [{name: a, fil: b, file: b}]}',
      'policy.bundle[0].fil: is not a known key; did you mean file?',
    ],
  ];
  for (const [what, text, problem] of crossed) {
    it(`refuses ${what}`, () => assert.deepEqual(problemsOf(text), [problem]));
  }

  it('takes the socket of `listen`, named again, for sharing it', () => {
    const text = 'listen: unix:///a\next_authz: {listen: "unix:/a"}';
    assert.equal(load(text).config.extAuthz.listen, undefined);
    assert.deepEqual(load('ext_authz: {listen: "unix:///b"}').config.extAuthz.listen, {
      kind: 'unix',
      path: '/b',
    });
  });

  it('refuses text that is no section at the top', () => {
    assert.deepEqual(problemsOf('[1]'), [': must be a section with keys of its own']);
    assert.deepEqual(problemsOf('hello'), [': must be a section with keys of its own']);
  });

  it('takes keys that name parts of a prototype for what they are: unknown', () => {
    const problems = problemsOf('{"__proto__": {"listen": "x"}, "admin": {"constructor": 1}}');
    assert.equal(problems.length, 2);
    assert.ok(problems.every((problem) => problem.includes('is not a known key')));
  });

  it('throws nothing but AppError, whatever the tree', () => {
    const key = fc.constantFrom(
      'identity',
      'source',
      'dev',
      'ext_authz',
      'queries',
      'match',
      'peer',
      'policy',
      'bundle',
      'x',
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom(null, 5, true, 'x', 'spiffe://a/b', '10s', 'dev'),
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        try {
          load(JSON.stringify(value));
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      }),
    );
  });
});

describe('describeConfig', () => {
  it('prints a config that loads to the same config', () => {
    const text = `identity: {source: dev, dev: {spiffe_ids: ["spiffe://dev.local/a"], serve_workload_api: "tcp://127.0.0.1:5"}}
listen: unix:///x.sock
ext_authz: {path: "", queries: [{match: {peer: "spiffe://dev.local/:id", method: [GET]}, set: {action: read, n: [1, null]}}], peer: {allowed_identities: ["spiffe://dev.local/*"]}}
policy: {engine: wasm, timeout: 1500ms, bundle: {file: /b.tar.gz}}
`;
    const { config, options } = load(text);
    const again = load(describeConfig(options));
    assert.deepEqual(again.config, config);
    assert.equal(describeConfig(again.options), describeConfig(options));
  });

  it('prints defaults as they would be written', () => {
    const text = describeConfig(load('').options);
    assert.match(text, /timeout: 150ms/);
    assert.match(text, /max_message_bytes: 4MiB/);
    assert.match(text, /listen_mode: "0660"/);
  });
});
