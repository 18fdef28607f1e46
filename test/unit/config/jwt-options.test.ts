import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeConfig, loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

const load = (text: string) => loadConfig({ text, path: '/etc/svidecar/svidecar.yaml', env: {}, flags: {} });

function problemsOf(text: string): readonly string[] {
  try {
    load(text);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
  return [];
}

const bridge =
  '{match: {path: "/v1/*"}, jwks_url: "https://login.test/keys", issuer: "https://login.test", audience: registry, spiffe_id: "spiffe://acme.test/agent/{sub}", mint_audience: teg}';
const tcp = 'listen: "tcp://127.0.0.1:9901"';

describe('options about JWT-SVIDs', () => {
  it('have their defaults, and headers in lower case', () => {
    const { extAuthz } = load(
      `ext_authz: {inject_jwt_svid: [{audience: billing}, {audience: audit, header: X-Audit, scheme: ""}], bridge: [${bridge}], peer: {jwt_svid: {header: X-JWT-SVID, audiences: [api]}}}`,
    ).config;
    assert.deepEqual(extAuthz.injectJwtSvid, [
      { match: {}, audience: 'billing', header: 'authorization', scheme: 'Bearer' },
      { match: {}, audience: 'audit', header: 'x-audit', scheme: '' },
    ]);
    assert.deepEqual(extAuthz.bridge, [
      {
        match: { path: '/v1/*' },
        jwksUrl: 'https://login.test/keys',
        issuer: 'https://login.test',
        audience: 'registry',
        header: 'authorization',
        spiffeId: { before: 'spiffe://acme.test/agent/', after: '' },
        mintAudience: 'teg',
      },
    ]);
    assert.deepEqual(extAuthz.peer.jwtSvid, { header: 'x-jwt-svid', audiences: ['api'] });
  });

  it('are printed so that they load to the same', () => {
    const { config, options } = load(
      `sds: {jwt_audiences: [billing]}\next_authz: {inject_jwt_svid: [{audience: billing, scheme: ""}], bridge: [${bridge}]}`,
    );
    assert.deepEqual(load(describeConfig(options)).config, config);
  });

  it('that give out tokens need a unix socket for ext_authz', () => {
    const message =
      'needs a unix socket: JWT-SVIDs do not go over tcp without TLS; set ext_authz.listen or ext_authz.tls';
    const both = `inject_jwt_svid: [{audience: billing}], bridge: [${bridge}]`;
    assert.deepEqual(problemsOf(`${tcp}\next_authz: {${both}}`), [
      `ext_authz.inject_jwt_svid: ${message}`,
      `ext_authz.bridge: ${message}`,
    ]);
    assert.deepEqual(problemsOf(`ext_authz: {listen: "tcp://127.0.0.1:9901", bridge: [${bridge}]}`), [
      `ext_authz.bridge: ${message}`,
    ]);
    assert.deepEqual(problemsOf(`${tcp}\next_authz: {listen: "unix:///run/authz.sock", ${both}}`), []);
    assert.deepEqual(problemsOf(`${tcp}\next_authz: {peer: {jwt_svid: {audiences: [api]}}}`), []);
  });

  const wrong: readonly (readonly [what: string, text: string, path: string])[] = [
    [
      'a header that frames the request',
      'inject_jwt_svid: [{audience: a, header: Host}]',
      'inject_jwt_svid[0].header',
    ],
    [
      'a header that is no name',
      'inject_jwt_svid: [{audience: a, header: "x y"}]',
      'inject_jwt_svid[0].header',
    ],
    ['a scheme with a blank', 'inject_jwt_svid: [{audience: a, scheme: "a b"}]', 'inject_jwt_svid[0].scheme'],
    ['an injection without audience', 'inject_jwt_svid: [{}]', 'inject_jwt_svid[0].audience'],
    ['an empty audience', 'peer: {jwt_svid: {audiences: [""]}}', 'peer.jwt_svid.audiences[0]'],
    [
      'a bridge that matches on the peer',
      `bridge: [${bridge.replace('{path:', '{peer: "spiffe://a.test/*", path:')}]`,
      'bridge[0].match.peer',
    ],
    [
      'keys over plain http',
      `bridge: [${bridge.replace('https://login.test/keys', 'http://login.test/keys')}]`,
      'bridge[0].jwks_url',
    ],
    ['an ID without {sub}', `bridge: [${bridge.replace('{sub}', 'x')}]`, 'bridge[0].spiffe_id'],
    [
      'a bridge without issuer',
      `bridge: [${bridge.replace('issuer: "https://login.test", ', '')}]`,
      'bridge[0].issuer',
    ],
  ];
  for (const [what, text, path] of wrong) {
    it(`refuse ${what}`, () => {
      const problems = problemsOf(`ext_authz: {${text}}`);
      assert.equal(problems.length, 1, problems.join('\n'));
      assert.ok(problems[0]?.startsWith(`ext_authz.${path}: `), problems[0]);
    });
  }
});
