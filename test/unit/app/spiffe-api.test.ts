import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createSpiffeApi } from '../../../src/app/spiffe-api.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { AppError, UnavailableError } from '../../../src/runtime/errors.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, testNow, trustIn } from '../../support/ca.ts';
import { createManualClock, settled } from '../../support/manual-clock.ts';

const authority = await createTestAuthority('example.org');
const [svid, internal] = [
  await authority.svid('spiffe://example.org/web'),
  await authority.svid('spiffe://example.org/internal', { hint: 'internal' }),
];

function start(t: TestContext, text = '') {
  const clock = createManualClock(testNow);
  const snapshots = createLatest<TrustSnapshot>(emptySnapshot);
  const updated: string[] = [];
  const api = createSpiffeApi(loadConfig({ text, env: {} }).config, {
    snapshots,
    sourceName: 'workload_api',
    bundleInfo: () => undefined,
    tokens: { get: () => Promise.reject(new UnavailableError('no token')) },
    now: clock.now,
    sleep: clock.sleep,
    meter: { bundleUpdated: (trustDomain) => updated.push(trustDomain) },
  });
  const stop = new AbortController();
  const { signal } = stop;
  const running = Promise.all(api.tasks.map((task) => task(signal)));
  const ask = async (target: string) => {
    const [path = '', query] = target.split('?');
    const answer = await api.routes
      .get(path)
      ?.handle({ query: new URLSearchParams(query), body: '', signal });
    assert.ok(answer !== undefined);
    return answer;
  };
  t.after(async () => {
    stop.abort();
    await running;
  });
  return { api, snapshots, ask, updated };
}

async function hear(ask: ReturnType<typeof start>['ask']): Promise<readonly string[]> {
  const answer = await ask('/events');
  assert.ok('chunks' in answer);
  const heard: string[] = [];
  void (async () => {
    for await (const chunk of answer.chunks) heard.push(chunk);
  })();
  await settled();
  return heard;
}

const eventsIn = (heard: readonly string[]): readonly (readonly [string, Record<string, unknown>])[] =>
  heard.slice(1).map((chunk) => {
    const [, name = '', data = ''] = /^event: (\w+)\ndata: (.*)\n\n$/.exec(chunk) ?? [];
    return [name, JSON.parse(data) as Record<string, unknown>];
  });

const time = new Date(testNow).toISOString();

describe('events of the admin server', () => {
  it('tell the identities held after each change, and each bundle', async (t) => {
    const { snapshots, ask, updated } = start(t);
    const heard = await hear(ask);
    snapshots.set({ ...emptySnapshot, version: 1, svids: [svid], bundles: trustIn(authority) });
    await settled();
    snapshots.set({ ...emptySnapshot, version: 2 });
    await settled();
    const held = {
      spiffe_id: svid.spiffeId,
      expires_at: new Date(svid.chain[0].notAfter).toISOString(),
      rotated_at: time,
    };
    const bundle = { time, trust_domain: 'example.org', jwt_authorities: 0 };
    assert.deepEqual(eventsIn(heard), [
      ['svid_update', { time, svids: [held] }],
      ['bundle_update', { ...bundle, held: true, x509_authorities: 1 }],
      ['svid_update', { time, svids: [] }],
      ['bundle_update', { ...bundle, held: false, x509_authorities: 0 }],
    ]);
    assert.deepEqual(updated, ['example.org', 'example.org'], 'each is counted, too');
  });

  it('tell each new problem of the source once, and again when it comes back', async (t) => {
    const { api, ask } = start(t);
    const heard = await hear(ask);
    const away = new UnavailableError('agent is away');
    for (const problem of [
      away,
      new UnavailableError('agent is away'),
      undefined,
      away,
      new AppError('permission_denied', 'no identity issued'),
    ]) {
      api.sourceProblem(problem);
      await settled();
    }
    const event = (code: string, message: string) => [
      'source_error',
      { time, source: 'workload_api', code, message },
    ];
    assert.deepEqual(eventsIn(heard), [
      event('unavailable', 'agent is away'),
      event('unavailable', 'agent is away'),
      event('permission_denied', 'no identity issued'),
    ]);
  });

  it('are for sixteen clients', async (t) => {
    const { ask } = start(t);
    for (let client = 0; client < 16; client += 1) await hear(ask);
    assert.deepEqual(await ask('/events'), {
      status: 503,
      contentType: 'application/json',
      body: '{"error":"too many clients listen to events"}\n',
    });
  });
});

describe('the SPIFFE paths as configured', () => {
  it('speak of the identity that the default hint picks', async (t) => {
    const { snapshots, ask } = start(t, 'sds: {default_svid_hint: internal}');
    snapshots.set({ ...emptySnapshot, version: 1, svids: [svid, internal], bundles: trustIn(authority) });
    const answer = await ask('/spiffe/svid/x509');
    assert.ok('body' in answer);
    assert.equal((JSON.parse(answer.body) as { spiffe_id: string }).spiffe_id, internal.spiffeId);
  });

  it('give JWT-SVIDs only when that is allowed', async (t) => {
    for (const [text, status] of [
      ['', 403],
      ['admin: {allow_jwt_svid: true}', 503],
    ] as const) {
      const { snapshots, ask } = start(t, text);
      snapshots.set({ ...emptySnapshot, version: 1, svids: [svid], bundles: trustIn(authority) });
      const answer = await ask('/spiffe/svid/jwt?audience=a');
      assert.ok('body' in answer);
      assert.equal(answer.status, status);
    }
  });
});
