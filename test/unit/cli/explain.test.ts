import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createX509Authority } from '../../../src/spiffe/authority.ts';
import { formatBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { startHttpsServer } from '../../support/https-server.ts';
import { cli, file, httpServer, type Ran } from './harness.ts';

const check = {
  attributes: {
    source: { principal: 'spiffe://dev.local/agent/7' },
    request: { http: { method: 'GET', path: '/orders?limit=1', host: 'shop' } },
  },
};

/** An OPA that allows agent 7 and gives anybody else an object with a reason. */
async function opa(t: TestContext): Promise<string> {
  return httpServer(t, (request, response) => {
    let body = '';
    request.on('data', (part) => {
      body += String(part);
    });
    request.on('end', () => {
      const agent = body.includes('/agent/7');
      const result = agent
        ? { allowed: true, response_headers_to_add: { 'x-agent': '7' } }
        : { allowed: false, http_status: 401, reason: 'not agent 7' };
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ result }));
    });
  });
}

async function explain(
  t: TestContext,
  extra: string,
  message: object,
  flags: readonly string[] = [],
): Promise<Ran> {
  const config = await file(
    t,
    'config.yaml',
    `identity: {source: dev}\npolicy: {timeout: 5s, opa: {url: "${await opa(t)}"}}\n${extra}`,
  );
  return cli(['explain', '--config', config, await file(t, 'check.json', JSON.stringify(message)), ...flags]);
}

type Explained = Readonly<{
  peer: object | null;
  query: Record<string, unknown> | null;
  input: Record<string, unknown> | null;
  evaluation: object | null;
  decision: Record<string, unknown>;
  response: Record<string, unknown>;
}>;

describe('explain', () => {
  it('tells each step from the peer to the response', async (t) => {
    const { code, stdout, stderr } = await explain(
      t,
      'ext_authz: {queries: [{match: {peer: "spiffe://dev.local/agent/:id", path: /orders}, path: shop/allow, input: agentweave}]}\n',
      check,
    );
    assert.equal(stderr, '');
    assert.equal(code, 0);
    const { peer, query, input, evaluation, decision, response } = JSON.parse(stdout) as Explained;
    assert.deepEqual(peer, {
      id: 'spiffe://dev.local/agent/7',
      trust_domain: 'dev.local',
      via: 'mtls',
      verified: false,
    });
    assert.deepEqual(query, {
      matched: 'ext_authz.queries[0]',
      path: 'shop/allow',
      input: 'agentweave',
      dry_run: false,
      captures: { id: '7' },
    });
    assert.equal(input?.['caller_spiffe_id'], 'spiffe://dev.local/agent/7');
    assert.equal(input['callee_spiffe_id'], 'spiffe://dev.local/service/web');
    assert.ok(evaluation !== null);
    assert.equal(decision['outcome'], 'allowed');
    assert.deepEqual(response['status'], { code: 0 });
    assert.match(JSON.stringify(response), /"key":"x-agent","value":"7"/);
  });

  it('shows where a JWT-SVID would be put, and never a token', async (t) => {
    const extra = 'ext_authz: {inject_jwt_svid: [{audience: billing}]}\n';
    const { code, stdout } = await explain(t, extra, check);
    assert.equal(code, 0);
    const { response } = JSON.parse(stdout) as Explained;
    assert.match(
      JSON.stringify(response),
      /"authorization","value":"Bearer \[JWT-SVID of spiffe:\/\/dev.local\/service\/web for billing\]"/,
    );
    assert.ok(!stdout.includes('eyJ'));
  });

  it('tells a denial with its reason, and still exits 0', async (t) => {
    const message = {
      attributes: { ...check.attributes, source: { principal: 'spiffe://dev.local/agent/8' } },
    };
    const { code, stdout } = await explain(t, '', message);
    assert.equal(code, 0);
    const { query, decision, response } = JSON.parse(stdout) as Explained;
    assert.equal(query?.['matched'], 'none: the default');
    assert.equal(decision['outcome'], 'denied');
    assert.equal(decision['reason_code'], 'policy_denied');
    assert.equal(decision['reason'], 'not agent 7');
    assert.deepEqual((response['status'] as { code: number }).code, 7);
    assert.match(JSON.stringify(response), /Unauthorized/);
    assert.equal(
      (response['dynamic_metadata'] as { decision_id: string }).decision_id,
      decision['decision_id'],
    );
  });

  it('ends at the step that refuses, and shows null for those after it', async (t) => {
    const { stdout } = await explain(t, '', { attributes: {} });
    const { peer, query, input, evaluation, decision } = JSON.parse(stdout) as Explained;
    assert.deepEqual(peer, { id: null, via: 'none' });
    assert.deepEqual([query, input, evaluation], [null, null, null]);
    assert.equal(decision['reason_code'], 'no_peer_identity');
  });

  it('judges without an identity source when told so, and says how when it is away', async (t) => {
    const config = await file(
      t,
      'config.yaml',
      `identity: {workload_api: {address: "unix:///nowhere"}}\npolicy: {timeout: 5s, opa: {url: "${await opa(t)}"}}\n`,
    );
    const argv = ['explain', '--config', config, await file(t, 'check.json', JSON.stringify(check))];
    const away = await cli([...argv, '--timeout', '500ms']);
    assert.equal(away.code, 1);
    assert.match(
      away.stderr,
      /does not exist.*with --without-identity the Check is judged with no bundles held/,
    );
    const unnamed = await cli([...argv, '--without-identity']);
    assert.equal(unnamed.code, 64);
    assert.match(unnamed.stderr, /trust_domain: is needed without an identity/);
    const { code, stdout } = await cli([...argv, '--without-identity', '--trust-domain', 'dev.local']);
    assert.equal(code, 0);
    assert.equal((JSON.parse(stdout) as Explained).decision['outcome'], 'allowed');
  });

  it('warns of keys that a CheckRequest does not have', async (t) => {
    const { stderr } = await explain(t, '', { attributes: { ...check.attributes, sourc: {} }, extra: 1 });
    assert.match(stderr, /attributes\.sourc is no field of a CheckRequest/);
    assert.match(stderr, /^warning: extra is no field/m);
  });

  it('exits 64 for a file that is no CheckRequest, and when ext_authz is off', async (t) => {
    const config = await file(t, 'config.yaml', 'identity: {source: dev}\n');
    for (const text of ['{', '[]', '{"attributes": 5}', '{"attributes": {"request": {"time": "noon"}}}']) {
      const { code, stderr } = await cli(['explain', '--config', config, await file(t, 'check.json', text)]);
      assert.equal(code, 64, text);
      assert.match(stderr, /check\.json: /, text);
    }
    const { code, stderr } = await explain(t, 'ext_authz: {enabled: false}\n', check);
    assert.equal(code, 64);
    assert.match(stderr, /ext_authz\.enabled: is false/);
  });

  it('asks the bundle endpoints of partners, and judges their peers by their own entry', async (t) => {
    const now = Date.now();
    const trustDomain = parseTrustDomain('partner.example');
    const ca = await createX509Authority({ trustDomain, ttlMs: 3_600_000, now });
    const issue = (id: string) => ca.issue({ spiffeId: parseSpiffeId(id), ttlMs: 3_600_000, now });
    const svid = await issue('spiffe://partner.example/bundles');
    const peer = await issue('spiffe://partner.example/agent/7');
    const bundle = formatBundleDocument({
      x509: { trustDomain, authorities: [ca.certificate], crls: [] },
      jwt: { trustDomain, authorities: [] },
    });
    const endpoint = await startHttpsServer(t, svid, (_, response) => response.end(bundle));
    const bootstrap = await file(t, 'partner.json', bundle);
    const federation = (allowed: string): string =>
      `federation: {trust_domains: [{name: partner.example, bundle_endpoint: "${endpoint.url}", profile: https_spiffe, endpoint_spiffe_id: "spiffe://partner.example/bundles", bootstrap_bundle: "${bootstrap}", allowed_identities: ["${allowed}"]}]}\n`;
    const source = {
      principal: peer.spiffeId,
      certificate: encodeURIComponent(encodeCertificatesPem(peer.chain).toString()),
    };
    const message = { attributes: { ...check.attributes, source } };
    const admitted = await explain(t, federation('spiffe://partner.example/agent/*'), message);
    assert.equal(admitted.stderr, '');
    const { peer: seen, decision } = JSON.parse(admitted.stdout) as Explained;
    assert.equal((seen as { verified?: boolean }).verified, true);
    assert.equal(decision['outcome'], 'allowed');
    const refused = await explain(t, federation('spiffe://partner.example/web'), message);
    const { decision: denial } = JSON.parse(refused.stdout) as Explained;
    assert.equal(denial['reason_code'], 'identity_not_allowed');
  });
});
