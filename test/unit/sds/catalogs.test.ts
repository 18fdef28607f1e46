import assert from 'node:assert/strict';
import { test } from 'node:test';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { createCatalogs } from '../../../src/sds/catalogs.ts';
import { noJwtSvids } from '../../../src/sds/resources.ts';
import { encodeCrlPem } from '../../../src/spiffe/certificate.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, testNow, x509Bundle, x509Bundles } from '../../support/ca.ts';
import { aliases } from './literal-catalog.ts';

const own = parseTrustDomain('example.org');
const [root, sibling] = await Promise.all([createTestAuthority(own), createTestAuthority(own)]);
const crl = await root.crl([(await root.leaf()).certificate]);
const pem = encodeCrlPem(crl).toString();

function snapshotOf(version: number, ...bundle: Parameters<typeof x509Bundle>): TrustSnapshot {
  return { ...emptySnapshot, version, trustDomain: own, bundles: x509Bundles(x509Bundle(...bundle)) };
}

async function start(first: TrustSnapshot) {
  const snapshots = createLatest(first);
  const warnings: object[] = [];
  let now = testNow;
  let wake = (): void => {};
  const catalogs = await createCatalogs({
    snapshots,
    jwtSvids: () => noJwtSvids,
    options: { ...aliases, defaultSvidHint: undefined },
    now: () => now,
    sleep: (_, signal) =>
      new Promise((resolve, reject) => {
        wake = resolve;
        signal.addEventListener('abort', () => reject(new AbortedError()), { once: true });
      }),
    log: { ...silentLogger, warn: (fields) => warnings.push(fields) },
  });
  const bundle = (spiffeValidator: boolean) => catalogs.current().view(spiffeValidator).find('ROOTCA');
  return {
    catalogs,
    snapshots,
    warnings,
    /** The bundle's message as text: PEM in it can be searched for. */
    text: (spiffeValidator = true) => bundle(spiffeValidator)?.secret.toString('latin1') ?? '',
    version: () => bundle(true)?.version,
    advance: (ms: number): void => {
      now += ms;
      wake();
    },
  };
}

test('a CRL stands behind the authorities for the SPIFFE validator, and as crl beside trusted_ca', async () => {
  const { text, catalogs } = await start(snapshotOf(1, own, [root], [crl]));
  assert.ok(text().includes(`-----END CERTIFICATE-----\n${pem}`));
  const plain = catalogs.current().view(false).find('ROOTCA')?.secret ?? Buffer.of();
  const { validationContext } = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret').decode(
    plain,
  );
  assert.equal(validationContext?.crl?.inlineBytes?.toString(), pem);
  assert.doesNotMatch(validationContext.trustedCa?.inlineBytes?.toString() ?? '', /X509 CRL/);
});

test('a CRL changes the version of the bundle, its order and repetition do not', async () => {
  const other = await root.crl([]);
  const { snapshots, version } = await start(snapshotOf(1, own, [root]));
  const without = version();
  snapshots.set(snapshotOf(2, own, [root], [crl, other]));
  const both = version();
  assert.notEqual(both, without);
  snapshots.set(snapshotOf(3, own, [root], [other, Buffer.from(crl), crl]));
  assert.equal(version(), both);
});

test('CRLs that are left out are told once, and again when the reason is another one', async () => {
  const { text, snapshots, warnings } = await start(snapshotOf(1, own, [root, sibling], [crl]));
  assert.ok(!text().includes('X509 CRL'));
  assert.ok(!text(false).includes('X509 CRL'));
  assert.equal(warnings.length, 1);
  assert.match(JSON.stringify(warnings[0]), /"trustDomain":"example\.org","reason":"authority .* has no CRL/);
  snapshots.set(snapshotOf(2, own, [root, sibling], [crl]));
  text();
  assert.equal(warnings.length, 1);
  snapshots.set(snapshotOf(3, own, [sibling], [crl]));
  text();
  assert.equal(warnings.length, 1);
  snapshots.set(snapshotOf(4, own, [root], [crl]));
  assert.ok(text().includes(pem));
  snapshots.set(snapshotOf(5, own, [root, sibling], [crl]));
  text();
  assert.equal(warnings.length, 2);
});

test('a CRL that is about to be out of date is taken out by itself, and streams are told', async () => {
  const { catalogs, text, warnings, advance } = await start(snapshotOf(1, own, [root], [crl]));
  assert.ok(text().includes(pem));
  const stop = new AbortController();
  let told = 0;
  const first = Promise.withResolvers<void>();
  const follow = (async () => {
    for await (const _ of catalogs.changes(stop.signal)) {
      told += 1;
      first.resolve();
    }
  })();
  advance(1000);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(told, 0);
  advance(3_600_000);
  await first.promise;
  assert.ok(!text().includes('X509 CRL'));
  assert.equal(warnings.length, 1);
  stop.abort();
  await follow;
  assert.equal(told, 1);
});
