import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createGrpcServer } from '../../src/grpc/server.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { chooseCrls } from '../../src/sds/crls.ts';
import { createX509Authority } from '../../src/spiffe/authority.ts';
import { parseBundleDocument } from '../../src/spiffe/bundle-document.ts';
import { parseCertificate } from '../../src/spiffe/certificate.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../../src/spiffe/verify.ts';
import { emptySnapshot } from '../../src/trust/snapshot.ts';
import { createDevSource } from '../../src/workload/dev.ts';
import { createWorkloadApiService } from '../../src/workload/dev-server.ts';
import type { IdentitySource } from '../../src/workload/identity-source.ts';
import { type ForeignClient, goSpiffeClient, pySpiffeClient } from '../support/foreign-clients.ts';
import { runProcess, startProcess, tempDirectory } from '../support/process.ts';

const trustDomain = parseTrustDomain('dev.local');
const partner = parseTrustDomain('partner.test');
const web = parseSpiffeId('spiffe://dev.local/web');
const api = parseSpiffeId('spiffe://dev.local/api');

type Transport = 'unix' | 'tcp';

const goRefusals = { wrong_audience: 'InvalidArgument', foreign_id: 'PermissionDenied' };
const pyRefusals = { wrong_audience: 'INVALID_ARGUMENT', foreign_id: 'PERMISSION_DENIED' };
const clients: readonly [string, (t: TestContext) => Promise<ForeignClient>, Transport, refusals: object][] =
  [
    ['go-spiffe', goSpiffeClient, 'unix', goRefusals],
    ['go-spiffe over TCP', goSpiffeClient, 'tcp', goRefusals],
    ['py-spiffe', pySpiffeClient, 'unix', pyRefusals],
  ];

for (const [name, build, transport, refusals] of clients) {
  test(`${name} gets and validates SVIDs and bundles of the dev Workload API and follows a rotation`, async (t) => {
    const { command, args } = await build(t);
    const { dev, source } = await createSource();
    const address = await serve(t, source, transport);
    const client = await startProcess(t, { name, command, args: [...args, address, 'billing', api] });

    const seen: unknown = JSON.parse(await client.waitForLine(/^\{/, { timeoutMs: 60_000 }));
    assert.deepEqual(seen, {
      verified_x509_svids: [web, api],
      context_bundles: { [trustDomain]: 1, [partner]: 1 },
      x509_bundles: { [trustDomain]: 1, [partner]: 1 },
      jwt_bundles: { [trustDomain]: [await jwtKeyId(dev)] },
      jwt_svids: [
        { id: web, audience: ['billing'] },
        { id: api, audience: ['billing'] },
      ],
      requested_jwt_svid: { id: api, audience: ['billing', 'extra'] },
      validated_locally: api,
      validated_by_server: api,
      ...refusals,
    });

    const mark = client.lineCount();
    await dev.rotate();
    const rotated: unknown = JSON.parse(await client.waitForLine(/^\{/, { since: mark, timeoutMs: 30_000 }));
    assert.deepEqual(rotated, { rotated_serial: await currentSerial(dev) });
    assert.deepEqual(await client.exit, { code: 0, signal: undefined });
  });
}

test('X509-SVIDs, CRLs and JWT-SVIDs that a Go program mints are what our validators make of them', async (t) => {
  const { command, args } = await goSpiffeClient(t);
  const { code, output } = await runProcess(t, {
    name: 'mint',
    command,
    args: [...args, 'mint', web, 'billing'],
  });
  assert.equal(code, 0, output);
  const minted = JSON.parse(output) as Minted;
  const { x509, jwt } = parseBundleDocument(JSON.stringify(minted.bundle), trustDomain);
  const crls = minted.crls.map((der) => Buffer.from(der, 'base64'));
  const certificates = (chain: readonly string[]) =>
    chain.map((der) => parseCertificate(Buffer.from(der, 'base64')));
  const verify = (chain: readonly string[], held: readonly Buffer[]) =>
    verifyX509Svid(certificates(chain), new Map([[trustDomain, { ...x509, crls: held }]]), Date.now());

  const valid = verify(minted.chain, crls);
  assert.equal(valid.valid && valid.spiffeId, web);
  assert.equal(verify(minted.revoked, []).valid, true);
  const revoked = verify(minted.revoked, crls);
  assert.ok(!revoked.valid);
  assert.equal(revoked.reason, 'untrusted_chain');
  assert.match(revoked.message, /is revoked/);
  const [, intermediate] = certificates(minted.chain);
  const choice = chooseCrls(
    {
      ...emptySnapshot,
      intermediates: intermediate === undefined ? [] : [intermediate],
      bundles: new Map([[trustDomain, { ...x509, crls }]]),
    },
    Date.now(),
  );
  assert.equal(choice.crls.get(trustDomain)?.length, 2, choice.leftOut.get(trustDomain));

  assert.equal(jwt.authorities.length, 9);
  assert.deepEqual(Object.keys(minted.tokens).sort(), [
    'ES256',
    'ES384',
    'ES512',
    'PS256',
    'PS384',
    'PS512',
    'RS256',
    'RS384',
    'RS512',
  ]);
  for (const [algorithm, token] of Object.entries(minted.tokens)) {
    const verified = await verifyJwtSvid(token, ['billing'], new Map([[trustDomain, jwt]]), Date.now());
    assert.equal(verified.valid && verified.spiffeId, web, algorithm);
    const refused = await verifyJwtSvid(token, ['ledger'], new Map([[trustDomain, jwt]]), Date.now());
    assert.equal(!refused.valid && refused.reason, 'audience_mismatch');
  }
});

/** What mint.go prints; DER in base64. */
type Minted = Readonly<{
  chain: readonly string[];
  revoked: readonly string[];
  crls: readonly string[];
  bundle: object;
  tokens: Readonly<Record<string, string>>;
}>;

/** The dev source, and the same with a federated trust domain beside its own. */
async function createSource() {
  const now = Date.now();
  const dev = await createDevSource({
    trustDomain,
    spiffeIds: [web, api],
    svidTtlMs: 3_600_000,
    jwtSvidTtlMs: 300_000,
    now: Date.now,
    sleep,
    log: silentLogger,
  });
  const { certificate } = await createX509Authority({ trustDomain: partner, ttlMs: 3_600_000, now });
  const federated = { trustDomain: partner, authorities: [certificate], crls: [] };
  const source: IdentitySource = {
    ...dev,
    async *watchX509(signal) {
      for await (const event of dev.watchX509(signal)) {
        if (event.kind !== 'update') continue;
        const bundles = new Map(event.value.bundles).set(partner, federated);
        yield { kind: 'update', value: { ...event.value, bundles } };
      }
    },
  };
  return { dev, source };
}

async function serve(t: TestContext, source: IdentitySource, transport: Transport): Promise<string> {
  const path = join(await tempDirectory(t), 'workload.sock');
  const server = createGrpcServer({
    services: [createWorkloadApiService(source, Date.now)],
    log: silentLogger,
  });
  t.after(() => server.shutdown(0));
  const { address } = await server.listen(
    transport === 'unix' ? { kind: 'unix', path } : { kind: 'tcp', host: '127.0.0.1', port: 0 },
    0o600,
  );
  return address;
}

async function jwtKeyId(source: IdentitySource): Promise<string | undefined> {
  for await (const event of source.watchJwtBundles(AbortSignal.timeout(5_000))) {
    if (event.kind === 'update') return event.value.get(trustDomain)?.authorities[0]?.keyId;
  }
  return undefined;
}

async function currentSerial(source: IdentitySource): Promise<string | undefined> {
  for await (const event of source.watchX509(AbortSignal.timeout(5_000))) {
    if (event.kind === 'update') return event.value.svids[0].chain[0].serial;
  }
  return undefined;
}
