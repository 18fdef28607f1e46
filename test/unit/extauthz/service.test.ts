import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { CheckTrace } from '../../../src/extauthz/check-trace.ts';
import { reasonCodeOf } from '../../../src/extauthz/outcome.ts';
import { createExtAuthzService } from '../../../src/extauthz/service.ts';
import { createGrpcClient, type GrpcClient } from '../../../src/grpc/client.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { createGrpcServer } from '../../../src/grpc/server.ts';
import { StatusError } from '../../../src/grpc/status.ts';
import type { Evaluation } from '../../../src/policy/policy-engine.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { emptySnapshot } from '../../../src/trust/snapshot.ts';
import { testNow } from '../../support/ca.ts';
import {
  answering,
  type CheckerParts,
  checkerWith,
  createTrust,
  failing,
  functionEngine,
  getRequest,
  neverAborted,
  snapshotHolder,
  type Trust,
} from './harness.ts';

const requests = messageCodec('envoy.service.auth.v3.CheckRequest');
const responses = messageCodec('envoy.service.auth.v3.CheckResponse');
const method = '/envoy.service.auth.v3.Authorization/Check';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

type Sidecar = Readonly<{ client: GrpcClient; traces: CheckTrace[]; counted: string[]; evaluated: number[] }>;

/** The service behind a real gRPC server, and a client of it. */
async function serving(
  parts: CheckerParts,
  maxConcurrent: number,
  use: (sidecar: Sidecar) => Promise<void>,
): Promise<void> {
  const traces: CheckTrace[] = [];
  const counted: string[] = [];
  const evaluated: number[] = [];
  const service = createExtAuthzService({
    checker: checkerWith(trust, parts),
    response: { headerMode: 'overwrite', onFailure: 'deny' },
    maxConcurrent,
    timeoutMs: 60_000,
    now: parts.now ?? (() => testNow),
    monotonicNow: () => performance.now(),
    onDecision: (trace) => traces.push(trace),
    meter: {
      checked: (result, reason, seconds) => {
        assert.ok(seconds >= 0 && seconds < 60);
        counted.push(`${result} ${reason}`);
      },
      evaluated: (seconds) => evaluated.push(seconds),
    },
  });
  const server = createGrpcServer({ services: [service], log: silentLogger });
  const { port } = await server.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  assert.ok(port !== undefined);
  const client = createGrpcClient({
    target: { kind: 'tcp', host: '127.0.0.1', port },
    maxMessageBytes: 1_048_576,
  });
  try {
    await use({ client, traces, counted, evaluated });
  } finally {
    client.close();
    await server.shutdown(0);
  }
}

async function check(client: GrpcClient, bytes = requests.encode({ attributes: getRequest() ?? null })) {
  return responses.decode(await client.unary(method, bytes, { signal: neverAborted }));
}

test('a Check over gRPC is answered, counted and recorded', async () => {
  await serving({}, 10, async ({ client, traces, counted, evaluated }) => {
    const response = await check(client);
    assert.equal(response.status?.code ?? 0, 0);
    assert.equal(traces.length, 1);
    assert.equal(response.dynamicMetadata?.fields['decision_id']?.stringValue, traces[0]?.decisionId);
    assert.deepEqual(counted, ['allow none']);
    assert.equal(evaluated.length, 1);
  });
});

test('bytes that are no CheckRequest are answered 400, not with a gRPC error', async () => {
  await serving({ rules: { requirePeer: false } }, 10, async ({ client, counted }) => {
    for (const bytes of [Buffer.from([0xff]), Buffer.from('rubbish'), Buffer.from([0x0a, 0x7f, 0x01])]) {
      const response = await check(client, bytes);
      assert.equal(response.deniedResponse?.status?.code, 'BadRequest');
    }
    assert.deepEqual(new Set(counted), new Set(['deny malformed_request']));
  });
});

test('metadata nested too deep for the decoder is answered 400, not with a gRPC error', async () => {
  // google.protobuf.Value: struct_value=5, list_value=6; each level wraps the one before as a list.
  let value = Buffer.from([0x20, 0x01]);
  const wrap = (tag: number, inner: Buffer) => {
    const length: number[] = [];
    for (let n = inner.length; ; n >>>= 7) {
      length.push(n > 127 ? (n & 127) | 128 : n);
      if (n <= 127) break;
    }
    return Buffer.concat([Buffer.from([tag, ...length]), inner]);
  };
  for (let i = 0; i < 500; i++) value = wrap(0x32, wrap(0x0a, value));
  const entry = wrap(0x0a, Buffer.concat([wrap(0x0a, Buffer.from('k')), wrap(0x12, value)]));
  const metadata = wrap(0x0a, Buffer.concat([wrap(0x0a, Buffer.from('ns')), wrap(0x12, entry)]));
  const bytes = wrap(0x0a, wrap(0x5a, metadata));
  await serving({}, 10, async ({ client }) => {
    assert.equal((await check(client, bytes)).deniedResponse?.status?.code, 'BadRequest');
  });
});

test('results are counted as allow, deny, failure or dry_run', async () => {
  const cases: [CheckerParts, string][] = [
    [{}, 'allow none'],
    [{ engine: answering(false) }, 'deny policy_denied'],
    [{ engine: answering(undefined) }, 'deny undefined_decision'],
    [{ engine: failing('engine_unavailable') }, 'failure engine_unavailable'],
    [{ engine: failing('engine_unavailable'), dryRun: true }, 'dry_run engine_unavailable'],
  ];
  for (const [parts, expected] of cases) {
    await serving(parts, 10, async ({ client, counted }) => {
      await check(client);
      assert.deepEqual(counted, [expected]);
    });
  }
});

test('before the first identity the answer is 503 at once', async () => {
  await serving({ snapshots: snapshotHolder(emptySnapshot) }, 10, async ({ client, evaluated }) => {
    assert.equal((await check(client)).deniedResponse?.status?.code, 'ServiceUnavailable');
    assert.equal(evaluated.length, 0);
  });
});

test('one Check too many is answered 503, and the place is free again afterwards', async () => {
  const blocked = Promise.withResolvers<Evaluation>();
  const entered = Promise.withResolvers<void>();
  const engine = functionEngine(() => {
    entered.resolve();
    return blocked.promise;
  });
  await serving({ engine }, 1, async ({ client, traces }) => {
    const first = check(client);
    await entered.promise;
    const second = await check(client);
    assert.equal(second.deniedResponse?.status?.code, 'ServiceUnavailable');
    assert.equal(traces[0] && reasonCodeOf(traces[0].outcome), 'overloaded');
    blocked.resolve({ kind: 'result', value: true });
    assert.equal((await first).status?.code ?? 0, 0);
    assert.equal((await check(client)).status?.code ?? 0, 0);
  });
});

test('a caller that goes away frees its place', async () => {
  const entered = Promise.withResolvers<void>();
  let calls = 0;
  const gone = Promise.withResolvers<void>();
  const engine = functionEngine((_path, _input, signal) => {
    calls += 1;
    if (calls > 1) return { kind: 'result', value: true };
    signal.addEventListener('abort', () => gone.resolve());
    entered.resolve();
    return new Promise<Evaluation>(() => {});
  });
  await serving({ engine }, 1, async ({ client }) => {
    const caller = new AbortController();
    const first = client.unary(method, requests.encode({ attributes: getRequest() ?? null }), {
      signal: caller.signal,
    });
    await entered.promise;
    caller.abort();
    await assert.rejects(first);
    await gone.promise;
    assert.equal((await check(client)).status?.code ?? 0, 0);
  });
});

test("a caller's deadline ends its Check with a gRPC status and nobody else's", async () => {
  // Told apart by the request: on a slow machine the deadline is over before a Check gets here.
  const engine = functionEngine((_, input) =>
    JSON.stringify(input).includes('/endless')
      ? new Promise<Evaluation>(() => {})
      : { kind: 'result', value: true },
  );
  await serving(
    { engine, now: Date.now, snapshots: snapshotHolder(trust.snapshot) },
    10,
    async ({ client }) => {
      const bytes = requests.encode({ attributes: getRequest({ path: '/endless' }) ?? null });
      await assert.rejects(
        client.unary(method, bytes, { signal: neverAborted, timeoutMs: 20 }),
        (error) => error instanceof StatusError && error.status === 4,
      );
      assert.equal((await check(client)).status?.code ?? 0, 0);
    },
  );
});

test('a policy answer that the wire cannot hold is recorded as the denial that it became', async () => {
  let metadata: object = {};
  for (let i = 0; i < 200; i++) metadata = { deeper: metadata };
  await serving(
    { engine: answering({ allowed: true, dynamic_metadata: metadata }) },
    10,
    async ({ client, traces, counted }) => {
      assert.equal((await check(client)).status?.code, 7);
      assert.deepEqual(counted, ['deny malformed_decision']);
      assert.equal(traces[0] && reasonCodeOf(traces[0].outcome), 'malformed_decision');
    },
  );
});

test('a Check so large that it has a turn of its own is judged like any other', async () => {
  await serving({ body: { parse: false, maxBytes: 10 } }, 10, async ({ client, counted }) => {
    const attributes = getRequest({ body: 'x'.repeat(100_000) }) ?? null;
    const answers = await Promise.all([1, 2, 3].map(() => check(client, requests.encode({ attributes }))));
    for (const { status } of answers) assert.equal(status?.code ?? 0, 0);
    assert.deepEqual(counted, ['allow none', 'allow none', 'allow none']);
  });
});

test('a flood of fields is refused as malformed, whatever the policy says', async () => {
  await serving({}, 10, async ({ client }) => {
    const headers = Object.fromEntries(Array.from({ length: 40_000 }, (_, i) => [String(i), '']));
    const answer = await check(client, requests.encode({ attributes: { request: { http: { headers } } } }));
    assert.equal(answer.deniedResponse?.status?.code, 'BadRequest');
  });
});

test('large Checks that get no turn within policy.timeout are answered 503, dry run or not, and never judged', async () => {
  let clock = 0;
  const judged: string[] = [];
  const traces: CheckTrace[] = [];
  // A policy that takes all the time that a Check has.
  const engine = functionEngine((_, input) => {
    clock += 100;
    judged.push(JSON.stringify(input).includes('/first') ? 'first' : 'another');
    return { kind: 'result', value: true };
  });
  const service = createExtAuthzService({
    checker: checkerWith(trust, { engine, dryRun: true, body: { parse: false, maxBytes: 10 } }),
    response: { headerMode: 'overwrite', onFailure: 'error' },
    maxConcurrent: 10,
    timeoutMs: 100,
    now: () => testNow,
    monotonicNow: () => clock,
    onDecision: (trace) => traces.push(trace),
    meter: { checked() {}, evaluated() {} },
  });
  const { Check } = service.methods;
  assert.ok(Check?.kind === 'unary');
  const call = { signal: neverAborted, deadline: undefined, peer: '', metadata: () => [] };
  const answers = await Promise.all(
    ['/first', '/second', '/third'].map((path) => {
      const attributes = getRequest({ path, body: 'x'.repeat(100_000) }) ?? null;
      return Check.handle(requests.encode({ attributes }), call) as Promise<Buffer>;
    }),
  );
  assert.deepEqual(
    answers.map((bytes) => responses.decode(bytes).deniedResponse?.status?.code),
    [undefined, 'ServiceUnavailable', 'ServiceUnavailable'],
  );
  assert.deepEqual(judged, ['first']);
  assert.deepEqual(
    traces.map(({ outcome, durationMs }) => [reasonCodeOf(outcome), durationMs]),
    [
      [undefined, traces[0]?.durationMs],
      ['overloaded', 100],
      ['overloaded', 100],
    ],
  );
});
