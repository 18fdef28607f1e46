import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createGrpcClient, type GrpcClient } from '../../../src/grpc/client.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { createGrpcServer, type GrpcServer } from '../../../src/grpc/server.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { sleep } from '../../../src/runtime/abort.ts';
import { AppError } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { createX509Authority } from '../../../src/spiffe/authority.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createDevSource, type DevSource } from '../../../src/workload/dev.ts';
import { createWorkloadApiService } from '../../../src/workload/dev-server.ts';
import type { IdentitySource, WatchEvent } from '../../../src/workload/identity-source.ts';
import { createWorkloadApiSource } from '../../../src/workload/workload-api.ts';

const trustDomain = parseTrustDomain('dev.local');
const partner = parseTrustDomain('partner.test');
const spiffeIds = ['spiffe://dev.local/web', 'spiffe://dev.local/api'].map(parseSpiffeId);
const metadata = { 'workload.spiffe.io': 'true' };
const codecs = {
  x509: messageCodec('X509SVIDResponse'),
  x509Bundles: messageCodec('X509BundlesResponse'),
  jwtRequest: messageCodec('JWTSVIDRequest'),
  jwt: messageCodec('JWTSVIDResponse'),
  validateRequest: messageCodec('ValidateJWTSVIDRequest'),
  validate: messageCodec('ValidateJWTSVIDResponse'),
};

const createDev = () =>
  createDevSource({
    trustDomain,
    spiffeIds,
    svidTtlMs: 3_600_000,
    jwtSvidTtlMs: 300_000,
    now: Date.now,
    sleep,
    log: silentLogger,
  });

describe('Workload API of the dev source', () => {
  const stopping = new AbortController();
  const { signal } = stopping;
  const directory = mkdtempSync(join(tmpdir(), 'dev-server-'));
  const path = join(directory, 'workload.sock');
  let dev: DevSource;
  let server: GrpcServer;
  let client: GrpcClient;

  before(async () => {
    dev = await createDev();
    server = createGrpcServer({ services: [createWorkloadApiService(dev, Date.now)], log: silentLogger });
    await server.listen({ kind: 'unix', path }, 0o600);
    client = createGrpcClient({ target: { kind: 'unix', path }, maxMessageBytes: 1_000_000 });
  });

  after(async () => {
    stopping.abort();
    client.close();
    await server.shutdown(0);
    rmSync(directory, { recursive: true });
  });

  function streamOf(from: GrpcClient, method: string, headers: Record<string, string>) {
    const options = { metadata: headers, signal };
    const messages = from.serverStream(`/SpiffeWorkloadAPI/${method}`, Buffer.alloc(0), options);
    return messages[Symbol.asyncIterator]();
  }
  const call = (method: string, request: Buffer) =>
    client.unary(`/SpiffeWorkloadAPI/${method}`, request, { metadata, signal });
  const open = (method: string, headers: Record<string, string> = metadata) =>
    streamOf(client, method, headers);
  const fetchJwt = async (audience: string[], spiffeId = '') =>
    codecs.jwt.decode(await call('FetchJWTSVID', codecs.jwtRequest.encode({ audience, spiffeId }))).svids;
  const validate = async (audience: string, svid: string) =>
    codecs.validate.decode(await call('ValidateJWTSVID', codecs.validateRequest.encode({ audience, svid })));
  const refuses = (promise: Promise<unknown>, status: number, details: string | RegExp) =>
    assert.rejects(promise, (error) => {
      assert.ok(error instanceof StatusError, String(error));
      assert.equal(error.status, status);
      if (typeof details === 'string') assert.equal(error.details, details);
      else assert.match(error.details, details);
      return true;
    });

  it('feeds our own client: SVIDs, rotations, JWT bundles and JWT-SVIDs', () =>
    feedsOurClient(`unix://${path}`));

  it('feeds our own client over TCP, too', async () => {
    const tcp = createGrpcServer({ services: [createWorkloadApiService(dev, Date.now)], log: silentLogger });
    const { port } = await tcp.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    await feedsOurClient(`tcp://127.0.0.1:${port}`);
    await tcp.shutdown(0);
  });

  async function feedsOurClient(address: string): Promise<void> {
    const source = createWorkloadApiSource({
      address,
      sleep,
      random: Math.random,
      now: Date.now,
      log: silentLogger,
      meter: { updated() {}, failed() {}, answered() {} },
    });
    const contexts = source.watchX509(signal)[Symbol.asyncIterator]();
    const next = async () => {
      const step = await contexts.next();
      assert.ok(step.done !== true && step.value.kind === 'update');
      return step.value.value;
    };
    const first = await next();
    assert.deepEqual(
      first.svids.map(({ spiffeId }) => spiffeId),
      spiffeIds,
    );
    await dev.rotate();
    const second = await next();
    assert.notEqual(second.svids[0].chain[0].serial, first.svids[0].chain[0].serial);

    const [svid] = await source.fetchJwtSvids({ audiences: ['billing'], spiffeId: spiffeIds[1] }, signal);
    assert.equal(svid?.spiffeId, spiffeIds[1]);
    for await (const event of source.watchJwtBundles(signal)) {
      assert.ok(event.kind === 'update');
      assert.equal(event.value.get(trustDomain)?.authorities.length, 1);
      break;
    }
    await assert.rejects(
      source.fetchJwtSvids({ audiences: ['a'], spiffeId: parseSpiffeId('spiffe://dev.local/no') }, signal),
      (error) => error instanceof AppError && error.code === 'permission_denied',
    );
  }

  it('sends bundles at once and not again when an SVID rotates', async () => {
    const bundles = open('FetchX509Bundles');
    const { value } = await bundles.next();
    const message = codecs.x509Bundles.decode(value);
    assert.deepEqual(Object.keys(message.bundles), ['spiffe://dev.local']);
    const svids = open('FetchX509SVID');
    await svids.next();
    let repeated = false;
    const pending = bundles.next().then(
      () => (repeated = true),
      () => {},
    );
    await dev.rotate();
    await svids.next();
    await dev.rotate();
    await svids.next();
    assert.equal(repeated, false);
    void pending;
  });

  it('validates its own JWT-SVIDs and returns the claims, aud as a list', async () => {
    const [svid] = await fetchJwt(['billing', 'ledger'], spiffeIds[0]);
    const { spiffeId, claims } = await validate('ledger', svid?.svid ?? '');
    assert.equal(spiffeId, spiffeIds[0]);
    assert.equal(claims?.fields['sub']?.stringValue, spiffeIds[0]);
    assert.deepEqual(
      claims?.fields['aud']?.listValue?.values.map(({ stringValue }) => stringValue),
      ['billing', 'ledger'],
    );
    assert.equal(typeof claims?.fields['exp']?.numberValue, 'number');
  });

  it('refuses to validate a JWT-SVID whose typ is that of another token, which SPIRE does not look at', async () => {
    const [good] = await fetchJwt(['billing']);
    const [header = '', ...rest] = (good?.svid ?? '').split('.');
    const decoded = JSON.parse(Buffer.from(header, 'base64url').toString()) as object;
    const wit = Buffer.from(JSON.stringify({ ...decoded, typ: 'wit+jwt' })).toString('base64url');
    await validate('billing', [header, ...rest].join('.'));
    await refuses(validate('billing', [wit, ...rest].join('.')), Status.INVALID_ARGUMENT, /typ other than/);
  });

  it('refuses every call without exactly the security header, as SPIRE does', async () => {
    const missing = 'security header missing from request';
    for (const method of ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles']) {
      await refuses(open(method, {}).next(), Status.INVALID_ARGUMENT, missing);
      await refuses(open(method, { 'workload.spiffe.io': 'True' }).next(), Status.INVALID_ARGUMENT, missing);
    }
    for (const method of ['FetchJWTSVID', 'ValidateJWTSVID']) {
      const bare = client.unary(`/SpiffeWorkloadAPI/${method}`, Buffer.alloc(0), { signal });
      await refuses(bare, Status.INVALID_ARGUMENT, missing);
    }
  });

  it("answers bad requests with SPIRE's statuses and texts", async () => {
    const { INVALID_ARGUMENT, PERMISSION_DENIED, UNIMPLEMENTED } = Status;
    await refuses(fetchJwt([]), INVALID_ARGUMENT, 'audience must be specified');
    await refuses(fetchJwt(['a'], 'web'), INVALID_ARGUMENT, /^invalid requested SPIFFE ID: /);
    await refuses(fetchJwt(['a'], 'spiffe://dev.local/no'), PERMISSION_DENIED, 'no identity issued');
    await refuses(validate('', 'x'), INVALID_ARGUMENT, 'audience must be specified');
    await refuses(validate('a', ''), INVALID_ARGUMENT, 'svid must be specified');
    await refuses(validate('a', 'rubbish'), INVALID_ARGUMENT, /three parts/);
    const [svid] = await fetchJwt(['a']);
    await refuses(validate('b', svid?.svid ?? ''), INVALID_ARGUMENT, /audience/);
    await refuses(open('FetchWITSVID').next(), UNIMPLEMENTED, /./);
  });

  it('tells revocation and failure of another source as their statuses, after the last good state', async () => {
    const federated = await createX509Authority({ trustDomain: partner, ttlMs: 3_600_000, now: Date.now() });
    async function* events(last: WatchEvent<never>): ReturnType<IdentitySource['watchX509']> {
      for await (const event of dev.watchX509(signal)) {
        assert.ok(event.kind === 'update');
        const bundle = { trustDomain: partner, authorities: [federated.certificate], crls: [] };
        yield {
          kind: 'update',
          value: { ...event.value, bundles: new Map(event.value.bundles).set(partner, bundle) },
        };
        yield { kind: 'failed', error: new AppError('unavailable', 'passing'), terminal: false };
        yield last;
        return;
      }
    }
    const error = new AppError('internal', 'broken for good');
    const cases: readonly [WatchEvent<never>, number, string][] = [
      [{ kind: 'revoked', error }, Status.PERMISSION_DENIED, 'no identity issued'],
      [{ kind: 'failed', error, terminal: true }, Status.UNAVAILABLE, 'broken for good'],
    ];
    for (const [last, status, details] of cases) {
      const other = createGrpcServer({
        services: [createWorkloadApiService({ ...dev, watchX509: () => events(last) }, Date.now)],
        log: silentLogger,
      });
      const bound = await other.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
      const target = { kind: 'tcp', host: '127.0.0.1', port: bound.port ?? 0 } as const;
      const otherClient = createGrpcClient({ target, maxMessageBytes: 1_000_000 });
      const stream = streamOf(otherClient, 'FetchX509SVID', metadata);
      const { value } = await stream.next();
      assert.deepEqual(Object.keys(codecs.x509.decode(value).federatedBundles), ['spiffe://partner.test']);
      await refuses(stream.next(), status, details);
      otherClient.close();
      await other.shutdown(0);
    }
  });
});
