import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createGrpcClient, type GrpcClient } from '../../../src/grpc/client.ts';
import type { MessageTypes } from '../../../src/grpc/messages.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { createGrpcServer } from '../../../src/grpc/server.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { type LogFields, type Logger, silentLogger } from '../../../src/runtime/log.ts';
import type { SdsMeter } from '../../../src/sds/meter.ts';
import { secretTypeUrl } from '../../../src/sds/secret.ts';
import { createSdsService, type Sds, type SdsOptions } from '../../../src/sds/service.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { createTrustStore, type TrustStore } from '../../../src/trust/store.ts';
import {
  createTestAuthority,
  type TestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';
import { aliases } from './literal-catalog.ts';

type SotwMessage = MessageTypes['envoy.service.discovery.v3.DiscoveryRequest']['in'];
type SotwResponse = MessageTypes['envoy.service.discovery.v3.DiscoveryResponse']['out'];
type DeltaMessage = MessageTypes['envoy.service.discovery.v3.DeltaDiscoveryRequest']['in'];

const sotwRequest = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');
const sotwResponse = messageCodec('envoy.service.discovery.v3.DiscoveryResponse');
const deltaRequest = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryRequest');
const deltaResponse = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryResponse');
const secretCodec = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret');
const path = '/envoy.service.secret.v3.SecretDiscoveryService';
const partner = 'spiffe://partner.example';

/** One open call: messages go in by `send`, answers come out by `next`. */
function openCall<In, Out>(
  client: GrpcClient,
  method: string,
  encode: (message: In) => Buffer,
  decode: (bytes: Buffer) => Out,
) {
  const controller = new AbortController();
  const queue: (Buffer | undefined)[] = [];
  let wake = (): void => {};
  const add = (message: Buffer | undefined): void => {
    queue.push(message);
    wake();
  };
  async function* requests() {
    for (;;) {
      if (queue.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const message = queue.shift();
      if (message === undefined) return;
      yield message;
    }
  }
  const call = client.bidi(`${path}/${method}`, requests(), { signal: controller.signal });
  const answers = call[Symbol.asyncIterator]();
  let pending: Promise<IteratorResult<Buffer, unknown>> | undefined;
  const pull = () => (pending ??= answers.next());

  return {
    send(message: In) {
      add(encode(message));
      pull().catch(() => {});
    },
    end: () => add(undefined),
    async next(): Promise<Out> {
      const result = await pull();
      pending = undefined;
      assert.ok(result.done !== true, 'the stream has ended');
      return decode(result.value);
    },
    async over(): Promise<void> {
      const result = await pull();
      assert.equal(result.done, true, 'the stream goes on');
    },
    cancel: () => controller.abort(),
  };
}

const openSotw = (client: GrpcClient) =>
  openCall(
    client,
    'StreamSecrets',
    (message: SotwMessage) => sotwRequest.encode(message),
    (bytes) => sotwResponse.decode(bytes),
  );

const openDelta = (client: GrpcClient) =>
  openCall(
    client,
    'DeltaSecrets',
    (message: DeltaMessage) => deltaRequest.encode(message),
    (bytes) => deltaResponse.decode(bytes),
  );

const namesIn = ({ resources }: SotwResponse) => resources.map(({ value }) => secretCodec.decode(value).name);

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i += 1) await delay(5);
  assert.ok(condition(), 'the condition was not met in time');
}

const options: SdsOptions = {
  ...aliases,
  spiffeValidator: true,
  defaultSvidHint: undefined,
  unknownNames: 'wait',
};

type Line = Readonly<{ level: string; fields: LogFields; message: string }>;

function recordingLogger(): { log: Logger; lines: Line[] } {
  const lines: Line[] = [];
  const at = (level: string) => (fields: LogFields, message: string) => {
    lines.push({ level, fields, message });
  };
  return { log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }, lines };
}

function countingMeter(): { meter: SdsMeter; counts: Map<string, number> } {
  const counts = new Map<string, number>();
  const count = (what: string) => (label: string) => {
    counts.set(`${what} ${label}`, (counts.get(`${what} ${label}`) ?? 0) + 1);
  };
  return {
    meter: {
      streamOpened: count('opened'),
      streamClosed: count('closed'),
      pushed: count('pushed'),
      acked: count('acked'),
      nacked: count('nacked'),
      unknownName: count('unknown'),
    },
    counts,
  };
}

describe('the SDS service on a socket', () => {
  let directory: string;
  let ca: TestAuthority;
  let partnerCa: TestAuthority;
  let sockets = 0;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'svidecar-sds-'));
    ca = await createTestAuthority('example.org');
    partnerCa = await createTestAuthority('partner.example');
  });
  after(() => rm(directory, { recursive: true }));

  async function start(context: TestContext, changed: Partial<SdsOptions> = {}) {
    const { log, lines } = recordingLogger();
    const { meter, counts } = countingMeter();
    const now = () => testNow;
    const store = createTrustStore({
      now,
      log: silentLogger,
      meter: { applied() {}, rotated() {} },
    });
    const sds = createSdsService({ snapshots: store, options: { ...options, ...changed }, log, meter, now });
    const server = createGrpcServer({ services: [sds.service], log: silentLogger });
    sockets += 1;
    const target = { kind: 'unix', path: join(directory, `${sockets}.sock`) } as const;
    await server.listen(target);
    const client = createGrpcClient({ target, maxMessageBytes: 1 << 22 });
    context.after(async () => {
      client.close();
      await server.shutdown(0);
    });
    return { store, sds, client, lines, counts };
  }

  function apply(store: TrustStore, svid: X509Svid, ...federated: readonly TestAuthority[]): void {
    const bundles = federated.map((authority) => x509Bundle('partner.example', [authority]));
    store.apply({
      kind: 'x509',
      context: { svids: [svid], bundles: x509Bundles(x509Bundle('example.org', [ca]), ...bundles) },
    });
  }

  const issue = () => ca.svid('spiffe://example.org/web');

  function clientOf(sds: Sds) {
    const [client, ...others] = sds.clients();
    assert.ok(client !== undefined && others.length === 0);
    return client;
  }

  test('answers StreamSecrets with type, nonce, version and its own name as control plane', async (context) => {
    const { store, client } = await start(context);
    apply(store, await issue());
    const stream = openSotw(client);
    stream.send({ resourceNames: ['default', 'ROOTCA'], typeUrl: secretTypeUrl });
    const answer = await stream.next();
    assert.deepEqual(namesIn(answer), ['ROOTCA', 'default']);
    assert.ok(answer.resources.every(({ type_url }) => type_url === secretTypeUrl));
    assert.equal(answer.typeUrl, secretTypeUrl);
    assert.equal(answer.controlPlane?.identifier, 'svidecar');
    assert.match(answer.versionInfo, /^[0-9a-f]{32}$/);
    assert.notEqual(answer.nonce, '');
    stream.cancel();
  });

  test('lets a stream that comes before the identity wait for it', async (context) => {
    const { store, sds, client } = await start(context, { unknownNames: 'reject' });
    const stream = openSotw(client);
    stream.send({ resourceNames: ['default'] });
    await until(() => sds.clients()[0]?.names.length === 1);
    apply(store, await issue());
    assert.deepEqual(namesIn(await stream.next()), ['default']);
    stream.cancel();
  });

  test('gives a restarted server and a reconnected client the same version for the same content', async (context) => {
    const svid = await issue();
    const versions: string[] = [];
    const nonces: string[] = [];
    for (let i = 0; i < 2; i += 1) {
      const { store, client } = await start(context);
      apply(store, svid);
      for (let j = 0; j < 2; j += 1) {
        const stream = openSotw(client);
        stream.send({
          resourceNames: ['default', 'ALL'],
          versionInfo: versions.at(-1) ?? '',
          responseNonce: nonces.at(-1) ?? '',
        });
        const answer = await stream.next();
        versions.push(answer.versionInfo);
        nonces.push(answer.nonce);
        stream.cancel();
      }
    }
    assert.equal(new Set(versions).size, 1);
    assert.equal(new Set(nonces).size, 4);
  });

  test('pushes a rotation to the streams that hold the SVID and leaves the others alone', async (context) => {
    const { store, client, counts } = await start(context);
    apply(store, await issue());
    const svid = openSotw(client);
    const bundle = openSotw(client);
    svid.send({ resourceNames: ['default'] });
    bundle.send({ resourceNames: ['ROOTCA'] });
    const before = await svid.next();
    const trustBefore = await bundle.next();
    const rotated = await issue();
    apply(store, rotated);
    assert.notEqual((await svid.next()).versionInfo, before.versionInfo);
    store.apply({
      kind: 'x509',
      context: { svids: [rotated], bundles: x509Bundles(x509Bundle('example.org', [ca, partnerCa])) },
    });
    assert.notEqual((await bundle.next()).versionInfo, trustBefore.versionInfo);
    assert.deepEqual([counts.get('pushed default_svid'), counts.get('pushed default_bundle')], [2, 2]);
    svid.cancel();
    bundle.cancel();
  });

  test('shows who is connected, what they hold and what they made of it', async (context) => {
    const { store, sds, client, counts, lines } = await start(context);
    apply(store, await issue());
    assert.deepEqual(sds.clients(), []);
    const stream = openSotw(client);
    stream.send({ resourceNames: ['default'], node: { id: 'envoy-1', cluster: 'web' } });
    const first = await stream.next();
    const { streamId, ...pending } = clientOf(sds);
    assert.notEqual(streamId, '');
    assert.deepEqual(pending, {
      protocol: 'sotw',
      openedAt: testNow,
      nodeId: 'envoy-1',
      cluster: 'web',
      everything: false,
      names: ['default'],
      version: first.versionInfo,
      ack: 'pending',
      nackMessage: undefined,
    });
    stream.send({ resourceNames: ['default'], versionInfo: first.versionInfo, responseNonce: first.nonce });
    await until(() => clientOf(sds).ack === 'acked');
    apply(store, await issue());
    const second = await stream.next();
    stream.send({
      resourceNames: ['default'],
      versionInfo: first.versionInfo,
      responseNonce: second.nonce,
      errorDetail: { code: 13, message: 'key does not match' },
    });
    await until(() => clientOf(sds).ack === 'nacked');
    assert.equal(clientOf(sds).nackMessage, 'key does not match');
    stream.end();
    await stream.over();
    await until(() => sds.clients().length === 0);
    assert.deepEqual(Object.fromEntries(counts), {
      'opened sotw': 1,
      'pushed default_svid': 2,
      'acked default_svid': 1,
      'nacked default_svid': 1,
      'closed sotw': 1,
    });
    const warnings = lines.filter(({ level }) => level === 'warn');
    assert.equal(warnings.length, 1);
    assert.deepEqual(
      { ...warnings[0]?.fields, stream: undefined },
      {
        protocol: 'sotw',
        stream: undefined,
        node: 'envoy-1',
        cluster: 'web',
        version: second.versionInfo,
        names: ['default'],
        reason: 'key does not match',
      },
    );
  });

  test('writes no key into any log line or client state', async (context) => {
    const { store, sds, client, lines } = await start(context);
    const svid = await issue();
    apply(store, svid);
    const stream = openSotw(client);
    stream.send({ resourceNames: [] });
    const answer = await stream.next();
    stream.send({ responseNonce: answer.nonce });
    await until(() => clientOf(sds).ack === 'acked');
    const written = JSON.stringify([lines, sds.clients()]);
    assert.ok(lines.length >= 2);
    for (const encoding of ['base64', 'hex', 'latin1'] as const) {
      const key = svid.privateKey.subarray(-40).toString(encoding);
      assert.ok(!written.includes(key));
    }
    assert.ok(!written.includes('PRIVATE KEY') && !written.includes('"data":['));
    stream.cancel();
  });

  test('says once why a name is not answered and what to do, and goes on', async (context) => {
    const { store, client, lines, counts } = await start(context);
    apply(store, await issue());
    const stream = openSotw(client);
    stream.send({ resourceNames: ['default', partner] });
    assert.deepEqual(namesIn(await stream.next()), ['default']);
    apply(store, await issue());
    await stream.next();
    const told = lines.filter(({ level }) => level === 'info');
    assert.deepEqual(
      told.map(({ fields }) => [fields.name, fields.reason]),
      [[partner, 'no bundle of that trust domain is held']],
    );
    assert.equal(counts.get('unknown trust_domain'), 1);
    apply(store, await issue(), partnerCa);
    assert.deepEqual(namesIn(await stream.next()), ['default', partner]);
    stream.cancel();
  });

  test('ends a stream by INVALID_ARGUMENT and the words of SPIRE when unknown names are rejected', async (context) => {
    const { store, client } = await start(context, { unknownNames: 'reject' });
    apply(store, await issue());
    for (const stream of [openSotw(client), openDelta(client)]) {
      stream.send({ resourceNames: [partner], resourceNamesSubscribe: [partner] });
      await assert.rejects(stream.next(), (error: unknown) => {
        assert.ok(error instanceof StatusError);
        assert.equal(error.status, Status.INVALID_ARGUMENT);
        assert.equal(
          error.details,
          'workload is not authorized for the requested identities ["spiffe://partner.example"]',
        );
        return true;
      });
    }
  });

  test('ends a stream that asks for another type or for too much', async (context) => {
    const { client } = await start(context);
    const cases: readonly (readonly [SotwMessage, number])[] = [
      [{ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' }, Status.INVALID_ARGUMENT],
      [{ resourceNames: ['x'.repeat(5000)] }, Status.RESOURCE_EXHAUSTED],
    ];
    for (const [message, status] of cases) {
      const stream = openSotw(client);
      stream.send(message);
      await assert.rejects(stream.next(), { status });
    }
  });

  test('answers DeltaSecrets with versions, removals, and the end of trust in two steps', async (context) => {
    const { store, client } = await start(context);
    const svid = await issue();
    apply(store, svid, partnerCa);
    const stream = openDelta(client);
    stream.send({ resourceNamesSubscribe: ['default', partner, 'nonsense'], typeUrl: secretTypeUrl });
    const first = await stream.next();
    assert.deepEqual(
      first.resources.map(({ name, resource }) => [name, resource?.type_url]),
      [
        ['default', secretTypeUrl],
        [partner, secretTypeUrl],
      ],
    );
    assert.ok(first.resources.every(({ version }) => /^[0-9a-f]{32}$/.test(version)));
    assert.deepEqual(first.removedResources, ['nonsense']);
    assert.equal(first.controlPlane?.identifier, 'svidecar');
    stream.send({ responseNonce: first.nonce });

    apply(store, svid);
    const second = await stream.next();
    assert.deepEqual(
      second.resources.map(({ name }) => name),
      [partner],
    );
    const context2 = secretCodec.decode(
      second.resources[0]?.resource?.value ?? Buffer.alloc(0),
    ).validationContext;
    const validator = messageCodec(
      'envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig',
    ).decode(context2?.customValidatorConfig?.typedConfig?.value ?? Buffer.alloc(0));
    const [domain] = validator.trustDomains;
    assert.equal(domain?.name, 'partner.example');
    assert.match(domain?.trustBundle?.inlineBytes?.toString('latin1') ?? '', /^-----BEGIN CERTIFICATE-----/);
    assert.ok(
      !(first.resources[1]?.resource?.value ?? Buffer.alloc(0)).equals(
        second.resources[0]?.resource?.value ?? Buffer.alloc(0),
      ),
    );
    stream.send({ responseNonce: second.nonce });
    const third = await stream.next();
    assert.deepEqual([third.resources, third.removedResources], [[], [partner]]);
    stream.cancel();
  });

  test('answers FetchSecrets with what is known, at once', async (context) => {
    const { store, client, counts } = await start(context);
    const fetchSecrets = async (resourceNames: string[]) =>
      sotwResponse.decode(
        await client.unary(`${path}/FetchSecrets`, sotwRequest.encode({ resourceNames }), {
          signal: new AbortController().signal,
        }),
      );
    assert.deepEqual((await fetchSecrets(['default'])).resources, []);
    apply(store, await issue());
    const known = await fetchSecrets(['default', partner]);
    assert.deepEqual(namesIn(known), ['default']);
    assert.equal(known.nonce, '');
    assert.match(known.versionInfo, /^[0-9a-f]{32}$/);
    assert.deepEqual(namesIn(await fetchSecrets([])), ['spiffe://example.org', 'spiffe://example.org/web']);
    assert.equal(counts.get('closed fetch'), 3);
  });

  test('rejects a fetch of unknown names when told to', async (context) => {
    const { store, client } = await start(context, { unknownNames: 'reject' });
    apply(store, await issue());
    const request = sotwRequest.encode({ resourceNames: ['nonsense'] });
    await assert.rejects(
      client.unary(`${path}/FetchSecrets`, request, { signal: new AbortController().signal }),
      { status: Status.INVALID_ARGUMENT },
    );
  });

  test('withdraws every trust, by name and by alias, when the identity is withdrawn', async (context) => {
    const { store, client } = await start(context);
    apply(store, await issue(), partnerCa);
    const stream = openSotw(client);
    stream.send({ resourceNames: ['ALL', 'ROOTCA', partner] });
    const before = await stream.next();
    store.apply({ kind: 'x509_revoked' });
    const afterwards = await stream.next();
    assert.deepEqual(namesIn(afterwards), ['ALL', 'ROOTCA', partner]);
    for (const [index, { value }] of afterwards.resources.entries()) {
      assert.ok(!value.equals(before.resources[index]?.value ?? Buffer.alloc(0)));
      assert.match(value.toString('latin1'), /BEGIN CERTIFICATE/);
    }
    stream.cancel();
  });

  test('serves a thousand streams and brings a rotation to the last of them', async (context) => {
    const { store, sds, client, counts } = await start(context);
    apply(store, await issue());
    const streams = Array.from({ length: 1000 }, () => openSotw(client));
    for (const stream of streams) stream.send({ resourceNames: ['default'] });
    const versions = new Set<string>();
    for (const stream of streams) versions.add((await stream.next()).versionInfo);
    assert.equal(versions.size, 1);
    assert.equal(sds.clients().length, 1000);
    apply(store, await issue());
    for (const stream of streams) versions.add((await stream.next()).versionInfo);
    assert.equal(versions.size, 2);
    assert.equal(counts.get('pushed default_svid'), 2000);
    for (const stream of streams) stream.cancel();
    await until(() => sds.clients().length === 0);
  });
});
