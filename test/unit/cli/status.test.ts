import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readinessOf } from '../../../src/admin/readiness.ts';
import { createAdminServer } from '../../../src/admin/server.ts';
import { buildStatus, type Status } from '../../../src/admin/status.ts';
import { formatStatus } from '../../../src/cli/status.ts';
import { formatTable } from '../../../src/cli/table.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { emptySnapshot } from '../../../src/trust/snapshot.ts';
import { cli, file, httpServer } from './harness.ts';

const status: Status = buildStatus({
  version: '1.2.3',
  startedAt: 0,
  now: 5000,
  readiness: readinessOf({ identity: 'no identity is held' }),
  snapshot: emptySnapshot,
  identity: { source: 'workload_api', problem: 'nobody answers' },
  envoys: [
    {
      protocol: 'sotw',
      openedAt: 0,
      nodeId: 'envoy-1',
      cluster: 'c',
      everything: false,
      names: ['default', 'ROOTCA'],
      version: 'v',
      ack: 'nacked',
      nackMessage: 'bad \u001b[31mkey',
    },
  ],
  policy: {
    engine: 'wasm',
    ready: true,
    problem: undefined,
    bundles: [
      { name: 'authz', revision: 'r1', digest: 'd1', problem: 'bad', activatedAt: 3000 },
      {
        name: 'teams',
        revision: '',
        digest: '',
        problem: 'bad, too',
        activatedAt: undefined,
        service: { location: 'https://b.example', etag: undefined, requestedAt: 5000, answeredAt: 4000 },
      },
    ],
  },
  outputs: [{ directory: '/run/svid', writtenAt: 2000, problem: undefined }],
  decisions: [
    {
      decisionId: 'd',
      at: 1000,
      outcome: 'deny',
      reasonCode: 'policy_denied',
      peer: 'spiffe://a.example/x',
      request: 'GET /',
    },
  ],
});

describe('status', () => {
  it('asks the admin server of the config, or the one that is named', async (t) => {
    const server = createAdminServer({
      readiness: () => readinessOf({}),
      status: () => status,
      metrics: () => assert.fail('not asked'),
      routes: new Map(),
      log: silentLogger,
    });
    const listener = await server.listen({ host: '127.0.0.1', port: 0 }, 'all');
    t.after(() => listener.close());
    const config = await file(t, 'config.yaml', `admin: {listen: "0.0.0.0:${listener.port}"}\n`);
    for (const argv of [
      ['--config', config],
      ['--admin', `http://127.0.0.1:${listener.port}`],
    ]) {
      const { code, stdout } = await cli(['status', '--json', ...argv]);
      assert.equal(code, 0);
      assert.deepEqual(JSON.parse(stdout), JSON.parse(JSON.stringify(status)));
    }
    const { stdout } = await cli(['status'], {
      env: { SVIDECAR_ADMIN_LISTEN: `127.0.0.1:${listener.port}` },
    });
    assert.match(stdout, /^svidecar 1\.2\.3 {2}not ready/);
  });

  it('exits 1 when nobody answers, or somebody else does', async (t) => {
    const nobody = await cli(['status', '--admin', 'http://127.0.0.1:1']);
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /^svidecar: no sidecar answers .*127\.0\.0\.1:1.*: start it/);
    for (const [body, message] of [
      ['hello', /no svidecar/],
      ['{"identity": 5}', /no svidecar/],
      ['null', /no svidecar/],
    ] as const) {
      const url = await httpServer(t, (_request, response) => response.end(body));
      const { code, stderr } = await cli(['status', '--admin', url]);
      assert.equal(code, 1);
      assert.match(stderr, message);
    }
    const refusing = await httpServer(t, (_request, response) => response.writeHead(403).end());
    assert.match((await cli(['status', '--admin', refusing])).stderr, /answers 403/);
  });
});

describe('status --admin', () => {
  it('is exit 64 when it is no URL of an admin server', async () => {
    for (const url of ['127.0.0.1:9902', 'ftp://127.0.0.1', '']) {
      const { code, stderr } = await cli(['status', '--admin', url]);
      assert.equal(code, 64, url);
      assert.match(stderr, /--admin: must be http/);
    }
  });
});

describe('formatStatus', () => {
  it('shows what is missing, who is connected and what was decided, without control characters', () => {
    assert.deepEqual(formatStatus(status).split('\n'), [
      'svidecar 1.2.3  not ready  since 1970-01-01T00:00:00.000Z',
      'missing identity: no identity is held',
      '',
      'identity from workload_api: nobody answers',
      'ENVOY    PROTOCOL  SECRETS         ANSWER',
      'envoy-1  sotw      default ROOTCA  nacked: bad ?[31mkey',
      'FILES      WRITTEN                   PROBLEM',
      '/run/svid  1970-01-01T00:00:02.000Z',
      '',
      'policy wasm ready',
      'BUNDLE  REVISION  IN FORCE SINCE            SERVICE ANSWERED          PROBLEM',
      'authz   r1        1970-01-01T00:00:03.000Z  a file                    bad',
      'teams             not yet                   1970-01-01T00:00:04.000Z  bad, too',
      'DECIDED                   OUTCOME  REASON         PEER                  REQUEST',
      '1970-01-01T00:00:01.000Z  deny     policy_denied  spiffe://a.example/x  GET /',
    ]);
  });
});

describe('formatTable', () => {
  it('is nothing without rows', () => assert.equal(formatTable(['A'], []), ''));

  it('aligns columns and leaves no blanks at the end', () => {
    assert.equal(
      formatTable(
        ['A', 'B'],
        [
          ['xx', ''],
          ['x', 'yy'],
        ],
      ),
      'A   B\nxx\nx   yy',
    );
  });
});
