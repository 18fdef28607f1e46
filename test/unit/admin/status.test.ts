import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readinessOf } from '../../../src/admin/readiness.ts';
import { createRecentDecisions, type RecentDecision } from '../../../src/admin/recent-decisions.ts';
import { buildStatus, type StatusParts } from '../../../src/admin/status.ts';
import { renderStatusPage } from '../../../src/admin/status-page.ts';
import { createX509Authority } from '../../../src/spiffe/authority.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';

const now = Date.parse('2026-01-01T00:00:00Z');
const hour = 3_600_000;
const own = parseTrustDomain('a.example');
const partner = parseTrustDomain('b.example');

async function held(): Promise<TrustSnapshot> {
  const authority = await createX509Authority({ trustDomain: own, ttlMs: 24 * hour, now });
  const svid = await authority.issue({ spiffeId: parseSpiffeId('spiffe://a.example/web'), ttlMs: hour, now });
  return {
    version: 1,
    trustDomain: own,
    svids: [svid],
    intermediates: [],
    bundles: new Map([
      [own, { trustDomain: own, authorities: [authority.certificate], crls: [] }],
      [partner, { trustDomain: partner, authorities: [], crls: [] }],
    ]),
    jwtBundles: new Map(),
  };
}

const decision = (fields: Partial<RecentDecision> = {}): RecentDecision => ({
  decisionId: 'id-1',
  at: now - 3000,
  outcome: 'deny',
  reasonCode: 'policy_denied',
  peer: 'spiffe://a.example/agent',
  request: 'GET /orders',
  ...fields,
});

const parts = (fields: Partial<StatusParts> = {}): StatusParts => ({
  version: '1.2.3',
  startedAt: now - 5 * hour,
  now,
  readiness: readinessOf({}),
  snapshot: emptySnapshot,
  identity: { source: 'dev', problem: undefined },
  envoys: [],
  policy: {
    engine: 'wasm',
    ready: true,
    problem: undefined,
    bundles: [
      { name: 'authz', revision: 'r1', digest: 'd1', problem: undefined, activatedAt: now - hour },
      {
        name: 'teams',
        revision: '',
        digest: '',
        problem: 'not loaded yet',
        activatedAt: undefined,
        service: {
          location: 'https://bundles.example/teams.tar.gz',
          etag: '"v1"',
          requestedAt: now,
          answeredAt: undefined,
        },
      },
    ],
  },
  decisions: [],
  outputs: [],
  ...fields,
});

describe('readinessOf', () => {
  it('names every part that is not there, and why', () => {
    assert.deepEqual(readinessOf({ identity: undefined, policy: undefined }), { ready: true, missing: [] });
    assert.deepEqual(readinessOf({ identity: 'none', policy: undefined, listeners: 'closed' }), {
      ready: false,
      missing: [
        { part: 'identity', reason: 'none' },
        { part: 'listeners', reason: 'closed' },
      ],
    });
  });
});

describe('recent decisions', () => {
  it('keeps the last few, the newest first', () => {
    const recent = createRecentDecisions(2);
    for (const decisionId of ['1', '2', '3']) recent.add(decision({ decisionId }));
    assert.deepEqual(
      recent.list().map(({ decisionId }) => decisionId),
      ['3', '2'],
    );
  });

  it('forgets the query string and cuts what is long', () => {
    const recent = createRecentDecisions();
    recent.add(decision({ request: 'GET /orders?token=abc' }));
    recent.add(decision({ request: `GET /${'x'.repeat(9999)}` }));
    assert.equal(recent.list()[1]?.request, 'GET /orders');
    assert.equal(recent.list()[0]?.request?.length, 256);
  });
});

describe('status', () => {
  it('tells identities, trust domains, Envoys, policy and decisions', async () => {
    const snapshot = await held();
    const status = buildStatus(
      parts({
        snapshot,
        envoys: [
          {
            protocol: 'delta',
            openedAt: now - hour,
            nodeId: 'envoy-1',
            cluster: 'web',
            everything: false,
            names: ['default', 'ROOTCA'],
            version: 'v1',
            ack: 'nacked',
            nackMessage: 'no such curve',
          },
        ],
        decisions: [decision()],
        outputs: [
          { directory: '/run/svid', writtenAt: now - hour, problem: undefined },
          { directory: '/run/other', writtenAt: undefined, problem: 'no space is left' },
        ],
      }),
    );
    assert.deepEqual(JSON.parse(JSON.stringify(status)), {
      version: '1.2.3',
      started_at: '2025-12-31T19:00:00.000Z',
      time: '2026-01-01T00:00:00.000Z',
      ready: true,
      missing: [],
      identity: {
        source: 'dev',
        trust_domain: 'a.example',
        svids: [
          {
            spiffe_id: 'spiffe://a.example/web',
            serial: snapshot.svids[0]?.chain[0].serial,
            not_before: new Date(snapshot.svids[0]?.chain[0].notBefore ?? 0).toISOString(),
            expires_at: '2026-01-01T01:00:00.000Z',
            expired: false,
          },
        ],
      },
      trust_domains: [
        {
          name: 'a.example',
          own: true,
          x509_authorities: 1,
          jwt_authorities: 0,
          expires_at: '2026-01-02T00:00:00.000Z',
        },
        { name: 'b.example', own: false, x509_authorities: 0, jwt_authorities: 0 },
      ],
      envoys: [
        {
          node_id: 'envoy-1',
          cluster: 'web',
          protocol: 'delta',
          opened_at: '2025-12-31T23:00:00.000Z',
          names: ['default', 'ROOTCA'],
          version: 'v1',
          ack: 'nacked',
          nack_message: 'no such curve',
        },
      ],
      policy: {
        engine: 'wasm',
        ready: true,
        bundles: [
          { name: 'authz', revision: 'r1', digest: 'd1', activated_at: new Date(now - hour).toISOString() },
          {
            name: 'teams',
            problem: 'not loaded yet',
            service: {
              url: 'https://bundles.example/teams.tar.gz',
              etag: '"v1"',
              requested_at: new Date(now).toISOString(),
            },
          },
        ],
      },
      decisions: [
        {
          time: '2025-12-31T23:59:57.000Z',
          decision_id: 'id-1',
          outcome: 'deny',
          reason_code: 'policy_denied',
          peer: 'spiffe://a.example/agent',
          request: 'GET /orders',
        },
      ],
      outputs: [
        { directory: '/run/svid', written_at: '2025-12-31T23:00:00.000Z' },
        { directory: '/run/other', problem: 'no space is left' },
      ],
    });
    assert.match(renderStatusPage(status), /\/run\/other.*\n.*not yet.*no space is left/);
  });

  it('says that an SVID expired while it was held', async () => {
    const status = buildStatus(parts({ snapshot: await held(), now: now + 2 * hour }));
    assert.equal(status.identity.svids[0]?.expired, true);
    assert.match(renderStatusPage(status), /expired 60 min ago/);
  });

  it('holds no private key', async () => {
    const snapshot = await held();
    const key = snapshot.svids[0]?.privateKey.toString('base64') ?? assert.fail();
    const status = buildStatus(parts({ snapshot }));
    for (const text of [JSON.stringify(status), renderStatusPage(status)]) {
      assert.ok(!text.includes(key.slice(0, 24)));
      assert.ok(!text.includes('PRIVATE KEY'));
    }
  });
});

describe('status page', () => {
  it('shows what a value holds as text, whatever it is', () => {
    const evil = `<script>alert("1")</script>'&`;
    const page = renderStatusPage(
      buildStatus(
        parts({
          identity: { source: evil, problem: evil },
          readiness: readinessOf({ identity: evil }),
          envoys: [
            {
              protocol: evil,
              openedAt: now,
              nodeId: evil,
              cluster: evil,
              everything: false,
              names: [evil],
              version: evil,
              ack: evil,
              nackMessage: evil,
            },
          ],
          policy: {
            engine: evil,
            ready: false,
            problem: evil,
            bundles: [{ name: evil, revision: evil, digest: evil, problem: evil, activatedAt: now }],
          },
          decisions: [decision({ peer: evil, request: evil, reasonCode: evil })],
        }),
      ),
    );
    assert.ok(!page.includes('<script'));
    assert.ok(page.split('&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;').length > 10);
  });

  it('loads nothing from anywhere', async () => {
    const page = renderStatusPage(buildStatus(parts({ snapshot: await held(), decisions: [decision()] })));
    assert.doesNotMatch(page, /src=|href=|url\(|@import/);
    assert.match(page, /spiffe:\/\/a\.example\/web/);
    assert.match(page, /GET \/orders/);
  });
});
