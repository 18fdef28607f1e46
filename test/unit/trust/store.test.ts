import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError, LimitError } from '../../../src/runtime/errors.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import type { JwtAuthority, X509Bundle } from '../../../src/spiffe/bundle.ts';
import type { Certificate } from '../../../src/spiffe/certificate.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { defaultTrustLimits, type TrustLimits } from '../../../src/trust/check-update.ts';
import { type TrustSnapshot, usableSvids } from '../../../src/trust/snapshot.ts';
import { createTrustStore, type TrustStore, type TrustUpdate } from '../../../src/trust/store.ts';
import {
  createTestAuthority,
  jwtBundles,
  type TestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';

const own = 'example.org';
const partner = 'partner.example';
const root = await createTestAuthority(own);
const partnerRoot = await createTestAuthority(partner);
const ownBundle = x509Bundle(own, [root]);
const partnerBundle = x509Bundle(partner, [partnerRoot]);
const web = await root.svid('spiffe://example.org/web');
const db = await root.svid('spiffe://example.org/db', { hint: 'internal' });
const [k1, k2] = (
  await Promise.all([createJwtSigner({ keyId: 'k1' }), createJwtSigner({ keyId: 'k2' })])
).map(({ authority }) => authority) as [JwtAuthority, JwtAuthority];

function x509(svids: readonly X509Svid[], ...bundles: readonly X509Bundle[]): TrustUpdate {
  return { kind: 'x509', context: { svids: svids as [X509Svid], bundles: x509Bundles(...bundles) } };
}

function jwt(authorities: Readonly<Record<string, readonly JwtAuthority[]>>): TrustUpdate {
  return { kind: 'jwt_bundles', bundles: jwtBundles(authorities) };
}

function setUp(
  options: { limits?: TrustLimits; expectedTrustDomain?: ReturnType<typeof parseTrustDomain> } = {},
): { store: TrustStore; counted: string[]; clock: { now: number } } {
  const counted: string[] = [];
  const clock = { now: testNow };
  const store = createTrustStore({
    ...options,
    now: () => clock.now,
    log: silentLogger,
    meter: {
      applied: (kind, outcome) => counted.push(`${kind} ${outcome}`),
      rotated: (id) => counted.push(`rotated ${id}`),
    },
  });
  return { store, counted, clock };
}

function assertRefused(store: TrustStore, update: TrustUpdate, message: RegExp): void {
  const before = store.current();
  assert.throws(
    () => store.apply(update),
    (error) => error instanceof AppError && message.test(error.message),
  );
  assert.equal(store.current(), before);
}

test('the first snapshot is empty and has version 0', () => {
  const { store } = setUp();
  assert.deepEqual(store.current(), {
    version: 0,
    trustDomain: undefined,
    svids: [],
    intermediates: [],
    bundles: new Map(),
    jwtBundles: new Map(),
  });
});

test('an update becomes a frozen snapshot, the order of SVIDs kept and bundles sorted', () => {
  const { store } = setUp();
  assert.equal(store.apply(x509([web, db], partnerBundle, ownBundle)), 'changed');
  const snapshot = store.current();
  assert.ok(Object.isFrozen(snapshot));
  assert.ok(Object.isFrozen(snapshot.svids));
  assert.equal(snapshot.version, 1);
  assert.equal(snapshot.trustDomain, own);
  assert.deepEqual(snapshot.svids, [web, db]);
  assert.deepEqual([...snapshot.bundles.keys()], [own, partner]);
});

test('whoever gave an update cannot change the snapshot afterwards', () => {
  const { store } = setUp();
  const bundles = new Map([[ownBundle.trustDomain, ownBundle]]);
  store.apply({ kind: 'x509', context: { svids: [web], bundles } });
  bundles.clear();
  assert.equal(store.current().bundles.size, 1);
});

test('the same material again is announced to nobody', () => {
  const { store, counted } = setUp();
  store.apply(x509([web, db], ownBundle, partnerBundle));
  const before = store.current();
  const copies = [web, db].map((svid) => ({ ...svid, privateKey: Buffer.from(svid.privateKey) }));
  assert.equal(store.apply(x509(copies, { ...partnerBundle }, { ...ownBundle })), 'unchanged');
  assert.equal(store.current(), before);
  store.apply(jwt({ [own]: [k1] }));
  assert.equal(store.apply(jwt({ [own]: [{ ...k1, jwk: { ...k1.jwk } }] })), 'unchanged');
  assert.deepEqual(counted, [
    'x509 changed',
    'x509 unchanged',
    'jwt_bundles changed',
    'jwt_bundles unchanged',
  ]);
});

for (const [what, update] of [
  ['another order of SVIDs', x509([db, web], ownBundle)],
  ['another hint', x509([{ ...web, hint: 'x' }, db], ownBundle)],
  ['an SVID less', x509([web], ownBundle)],
  ['a new certificate', x509([await root.svid('spiffe://example.org/web'), db], ownBundle)],
  ['a bundle more', x509([web, db], ownBundle, partnerBundle)],
  ['an authority more', x509([web, db], x509Bundle(own, [root, partnerRoot]))],
  ['a CRL', x509([web, db], { ...ownBundle, crls: [Buffer.of(1)] })],
] as const) {
  test(`${what} is a change`, () => {
    const { store } = setUp();
    store.apply(x509([web, db], ownBundle));
    assert.equal(store.apply(update), 'changed');
    assert.equal(store.current().version, 2);
  });
}

test('another JWT key, another ID for it or another domain is a change', () => {
  const { store } = setUp();
  store.apply(jwt({ [own]: [k1] }));
  assert.equal(store.apply(jwt({ [own]: [{ ...k2, keyId: 'k1' }] })), 'changed');
  assert.equal(store.apply(jwt({ [own]: [{ ...k2, keyId: 'k9' }] })), 'changed');
  assert.equal(store.apply(jwt({ [own]: [{ ...k2, keyId: 'k9' }], [partner]: [] })), 'changed');
  assert.equal(store.current().version, 4);
});

test('a trust domain that a message leaves out is no longer trusted', () => {
  const { store } = setUp();
  store.apply(x509([web], ownBundle, partnerBundle));
  store.apply(x509([web], ownBundle));
  assert.deepEqual([...store.current().bundles.keys()], [own]);
});

test('an empty federated bundle is kept as a domain that trusts nothing', () => {
  const { store } = setUp();
  store.apply(x509([web], ownBundle, x509Bundle(partner, [])));
  assert.deepEqual(store.current().bundles.get(parseTrustDomain(partner))?.authorities, []);
});

test('an update without the bundle of its own domain, or with an empty one, is refused whole', () => {
  const { store, counted } = setUp();
  store.apply(x509([web], ownBundle));
  assertRefused(
    store,
    x509([db], partnerBundle),
    /lacks the X\.509 bundle of its own trust domain example\.org/,
  );
  assertRefused(store, x509([db], x509Bundle(own, [])), /lacks the X\.509 bundle/);
  assert.deepEqual(counted, ['x509 changed', 'x509 refused', 'x509 refused']);
});

test('an SVID of another trust domain than expected never gets in', async () => {
  const stranger = await partnerRoot.svid('spiffe://partner.example/web');
  const { store } = setUp({ expectedTrustDomain: parseTrustDomain(own) });
  const message = /^trust domain mismatch: expected example\.org, got partner\.example$/;
  assertRefused(store, x509([stranger], partnerBundle), message);
  assertRefused(store, x509([web, stranger], ownBundle, partnerBundle), message);
  assert.equal(store.apply(x509([web], ownBundle, partnerBundle)), 'changed');
});

test('a key that is not the leaf’s, a leaf for another ID, and an expired leaf never get in', async () => {
  const { store, clock } = setUp();
  assertRefused(
    store,
    x509([{ ...web, privateKey: db.privateKey }], ownBundle),
    /does not match its certificate/,
  );
  assertRefused(store, x509([web, { ...db, spiffeId: web.spiffeId }], ownBundle), /certificate for/);
  const expired = await root.leaf({ uris: [web.spiffeId], notAfter: testNow - 1000 });
  const { certificate, privateKey } = expired;
  assertRefused(store, x509([{ ...web, chain: [certificate], privateKey }], ownBundle), /expired/);
  clock.now = testNow - 7_200_000;
  assertRefused(store, x509([web], ownBundle), /not valid before/);
});

test('a bundle that is filed under another name is refused', () => {
  const { store } = setUp();
  const bundles = new Map([
    [ownBundle.trustDomain, ownBundle],
    [parseTrustDomain(partner), ownBundle],
  ]);
  assertRefused(store, { kind: 'x509', context: { svids: [web], bundles } }, /filed wrongly/);
  const jwtBundle = { trustDomain: parseTrustDomain(own), authorities: [k1] };
  const jwtSet = new Map([[parseTrustDomain(partner), jwtBundle]]);
  assertRefused(store, { kind: 'jwt_bundles', bundles: jwtSet }, /filed wrongly/);
});

test('of several SVIDs with one hint the first is taken, without a hint all are', async () => {
  const again = await root.svid('spiffe://example.org/again', { hint: 'internal' });
  const plain = await root.svid('spiffe://example.org/plain');
  const { store } = setUp();
  store.apply(x509([web, db, again, plain], ownBundle));
  assert.deepEqual(store.current().svids, [web, db, plain]);
});

test('every limit refuses the update whole', () => {
  const der = web.chain[0].der.length + web.privateKey.length + root.certificate.der.length;
  const withLimit = (limits: Partial<TrustLimits>) =>
    setUp({ limits: { ...defaultTrustLimits, ...limits } }).store;
  for (const [limits, fits, exceeds] of [
    [{ maxSvids: 1 }, x509([web], ownBundle), x509([web, db], ownBundle)],
    [{ maxBundles: 1 }, x509([web], ownBundle), x509([web], ownBundle, partnerBundle)],
    [{ maxAuthorities: 1 }, x509([web], ownBundle), x509([web], x509Bundle(own, [root, partnerRoot]))],
    [{ maxDerBytes: der }, x509([web], ownBundle), x509([web], { ...ownBundle, crls: [Buffer.of(1)] })],
    [{ maxBundles: 1 }, jwt({ [own]: [k1] }), jwt({ [own]: [k1], [partner]: [] })],
    [{ maxAuthorities: 1 }, jwt({ [own]: [k1] }), jwt({ [own]: [k1, k2] })],
  ] as const) {
    const store = withLimit(limits);
    assert.equal(store.apply(fits), 'changed');
    assert.throws(() => store.apply(exceeds), LimitError);
    assert.equal(store.current().version, 1);
  }
});

test('a revoked identity leaves no SVID and no X.509 bundle, and JWT bundles alone', () => {
  const { store } = setUp();
  store.apply(jwt({ [own]: [k1] }));
  store.apply(x509([web], ownBundle, partnerBundle));
  assert.equal(store.apply({ kind: 'x509_revoked' }), 'changed');
  const { version, trustDomain, svids, bundles, jwtBundles: jwtSet } = store.current();
  assert.deepEqual([version, trustDomain, svids, bundles.size, jwtSet.size], [3, undefined, [], 0, 1]);
  assert.equal(store.apply({ kind: 'x509_revoked' }), 'unchanged');
  assert.equal(store.apply({ kind: 'jwt_bundles_revoked' }), 'changed');
  assert.equal(store.current().jwtBundles.size, 0);
  assert.equal(store.apply({ kind: 'jwt_bundles_revoked' }), 'unchanged');
  assert.equal(store.apply(x509([web], ownBundle)), 'changed');
  assert.equal(store.current().version, 5);
});

test('an intermediate outlives the SVIDs under it, for peers that are renewed later, until it expires', async () => {
  const { store, clock } = setUp();
  const [first, second] = [await root.intermediate({ notAfter: testNow + 1000 }), await root.intermediate()];
  const under = (intermediate: TestAuthority) =>
    intermediate.svid('spiffe://example.org/web', { through: [intermediate] });
  const [webBySecond, dbBySecond] = [await under(second), await under(second)];
  const held = (): readonly Certificate[] => store.current().intermediates;

  store.apply(x509([await under(first)], ownBundle));
  assert.deepEqual(held(), [first.certificate]);
  store.apply(x509([webBySecond, dbBySecond], ownBundle));
  assert.deepEqual(held(), [second.certificate, first.certificate]);
  store.apply(x509([webBySecond], ownBundle));
  assert.deepEqual(held(), [second.certificate, first.certificate], 'each is held once');
  clock.now = testNow + 1001;
  store.apply(x509([dbBySecond], ownBundle));
  assert.deepEqual(held(), [second.certificate]);
});

test('earlier intermediates go with the identity, with the trust domain, and when there are too many', async () => {
  const { store } = setUp();
  const below = async (authority: TestAuthority, trustDomain: string): Promise<X509Svid> => {
    const intermediate = await authority.intermediate();
    return intermediate.svid(`spiffe://${trustDomain}/web`, { through: [intermediate] });
  };
  for (let i = 0; i < 20; i += 1) store.apply(x509([await below(root, own)], ownBundle));
  assert.equal(store.current().intermediates.length, 17);
  store.apply({ kind: 'x509_revoked' });
  assert.deepEqual(store.current().intermediates, []);
  store.apply(x509([await below(root, own)], ownBundle));
  assert.equal(store.current().intermediates.length, 1);
  store.apply(x509([await below(partnerRoot, partner)], partnerBundle));
  assert.equal(store.current().intermediates.length, 1);
});

test('JWT bundles and X.509 never touch each other', () => {
  const { store } = setUp();
  store.apply(x509([web], ownBundle));
  store.apply(jwt({ [own]: [k1] }));
  store.apply(x509([db], ownBundle));
  const { svids, bundles, jwtBundles: jwtSet } = store.current();
  assert.deepEqual(svids, [db]);
  assert.equal(bundles.get(parseTrustDomain(own))?.authorities[0]?.fingerprint, root.certificate.fingerprint);
  assert.deepEqual(jwtSet.get(parseTrustDomain(own))?.authorities, [k1]);
});

test('the own JWT bundle is not dropped by a message that lacks it, but may become empty', () => {
  const { store } = setUp();
  store.apply(x509([web], ownBundle));
  store.apply(jwt({ [own]: [k1] }));
  assertRefused(store, jwt({ [partner]: [k2] }), /lacks the JWT bundle of the own trust domain example\.org/);
  assertRefused(store, jwt({}), /no JWT bundle/);
  assert.equal(store.apply(jwt({ [own]: [] })), 'changed');
});

test('a first JWT message without the own domain is taken: there is nothing to drop', () => {
  const { store } = setUp();
  store.apply(x509([web], ownBundle));
  assert.equal(store.apply(jwt({ [partner]: [k2] })), 'changed');
});

test('a rotation is counted once for each SVID that got a new certificate', async () => {
  const { store, counted } = setUp();
  store.apply(x509([web, db], ownBundle));
  store.apply(x509([await root.svid('spiffe://example.org/web'), db], ownBundle));
  store.apply(x509([db, web], ownBundle));
  assert.deepEqual(
    counted.filter((line) => line.startsWith('rotated')),
    ['rotated spiffe://example.org/web', 'rotated spiffe://example.org/web'],
  );
});

test('an SVID that expired while held stays, and is not usable', () => {
  const { store } = setUp();
  store.apply(x509([web, db], ownBundle));
  const end = web.chain[0].notAfter;
  assert.deepEqual(usableSvids(store.current(), end), [web, db]);
  assert.deepEqual(usableSvids(store.current(), end + 1), []);
  assert.equal(store.current().svids.length, 2);
});

test('readers get the current snapshot, then newer ones, and slow ones the newest only', async () => {
  const { store } = setUp();
  const controller = new AbortController();
  const seen: number[] = [];
  const reader = store.changes(controller.signal)[Symbol.asyncIterator]();
  const read = async (): Promise<TrustSnapshot> => {
    const { value } = await reader.next();
    const snapshot = value as TrustSnapshot;
    seen.push(snapshot.version);
    return snapshot;
  };
  await read();
  store.apply(x509([web], ownBundle));
  await read();
  store.apply(x509([db], ownBundle));
  store.apply(x509([db], ownBundle));
  store.apply(x509([web, db], ownBundle));
  assert.deepEqual((await read()).svids, [web, db]);
  assert.deepEqual(seen, [0, 1, 3]);
  const waiting = reader.next();
  controller.abort();
  assert.equal((await waiting).done, true);
});

test('no log line carries a key', () => {
  const lines: unknown[] = [];
  const line = (fields: unknown, message: string): void => void lines.push([fields, message]);
  const store = createTrustStore({
    now: () => testNow,
    log: { debug: line, info: line, warn: line, error: line },
    meter: { applied() {}, rotated() {} },
  });
  store.apply(x509([web, db], ownBundle, partnerBundle));
  const text = JSON.stringify(lines);
  assert.match(text, /spiffe:\/\/example\.org\/web/);
  for (const { privateKey } of [web, db]) {
    for (const encoding of ['base64', 'hex'] as const)
      assert.ok(!text.includes(privateKey.toString(encoding)));
    assert.ok(!text.includes(privateKey.subarray(-40, -30).join(',')));
  }
});

function federated(
  name: string,
  x509Authorities: readonly { certificate: Certificate }[],
  jwtAuthorities: readonly JwtAuthority[] = [],
): TrustUpdate {
  const trustDomain = parseTrustDomain(name);
  const jwtBundle = { trustDomain, authorities: jwtAuthorities };
  return {
    kind: 'federated',
    document: { trustDomain, x509: x509Bundle(name, x509Authorities), jwt: jwtBundle },
  };
}

test('a bundle from an endpoint stands beside those of the source, X.509 and JWT, and the same again is no news', () => {
  const { store, counted } = setUp();
  const domain = parseTrustDomain(partner);
  store.apply(x509([web], ownBundle));
  assert.equal(store.apply(federated(partner, [partnerRoot], [k1])), 'changed');
  assert.equal(store.apply(federated(partner, [partnerRoot], [k1])), 'unchanged');
  assert.deepEqual([...store.current().bundles.keys()], [own, partner]);
  assert.deepEqual(store.current().jwtBundles.get(domain)?.authorities, [k1]);
  assert.equal(store.originOf(domain), 'endpoint');
  assert.equal(store.originOf(parseTrustDomain(own)), 'source');
  assert.equal(store.originOf(parseTrustDomain('third.example')), undefined);
  assert.deepEqual(counted, ['x509 changed', 'federated changed', 'federated unchanged']);
});

test('what the source says of a domain wins over its endpoint, and when it stops the endpoint’s applies again', async () => {
  const { store } = setUp();
  const domain = parseTrustDomain(partner);
  const other = await createTestAuthority(partner);
  const authorities = (): readonly string[] =>
    (store.current().bundles.get(domain)?.authorities ?? []).map(({ fingerprint }) => fingerprint);
  store.apply(x509([web], ownBundle, partnerBundle));
  assert.equal(store.apply(federated(partner, [other], [k1])), 'changed', 'the JWT bundle is new');
  assert.deepEqual(authorities(), [partnerRoot.certificate.fingerprint]);
  assert.equal(store.originOf(domain), 'source');
  store.apply(x509([web], ownBundle));
  assert.deepEqual(authorities(), [other.certificate.fingerprint], 'never merged');
  store.apply(x509([web], ownBundle, x509Bundle(partner, [])));
  assert.deepEqual(authorities(), [], 'also when what it says is that nothing is to be trusted');
  store.apply({ kind: 'jwt_bundles', bundles: jwtBundles({ [own]: [k1], [partner]: [k2] }) });
  assert.deepEqual(store.current().jwtBundles.get(domain)?.authorities, [k2]);
});

test('an emptied bundle from an endpoint leaves a domain that trusts nothing, a removed one leaves none', () => {
  const { store } = setUp();
  const domain = parseTrustDomain(partner);
  store.apply(x509([web], ownBundle));
  store.apply(federated(partner, [partnerRoot], [k1]));
  store.apply(federated(partner, []));
  assert.deepEqual(store.current().bundles.get(domain)?.authorities, []);
  assert.equal(store.apply({ kind: 'federated_removed', trustDomain: domain }), 'changed');
  assert.equal(store.current().bundles.has(domain), false);
  assert.equal(store.current().jwtBundles.has(domain), false);
  assert.equal(store.apply({ kind: 'federated_removed', trustDomain: domain }), 'unchanged');
});

test('no endpoint has a say about our own trust domain, whichever comes first, nor after the identity is gone', () => {
  const asserted = setUp({ expectedTrustDomain: parseTrustDomain(own) });
  assertRefused(asserted.store, federated(own, [partnerRoot]), /is our own trust domain/);
  const { store } = setUp();
  assert.equal(store.apply(federated(own, [partnerRoot])), 'changed', 'nobody knows yet that it is ours');
  store.apply(x509([web], ownBundle));
  assertRefused(store, federated(own, [partnerRoot]), /is our own trust domain/);
  assert.deepEqual(store.current().bundles.get(parseTrustDomain(own)), ownBundle);
  store.apply({ kind: 'x509_revoked' });
  assert.equal(store.current().bundles.size, 0);
  assert.equal(store.originOf(parseTrustDomain(own)), undefined);
});

test('bundles of partners stay when the identity is withdrawn', () => {
  const { store } = setUp();
  store.apply(x509([web], ownBundle));
  store.apply(federated(partner, [partnerRoot]));
  store.apply({ kind: 'x509_revoked' });
  assert.deepEqual([...store.current().bundles.keys()], [partner]);
  assert.equal(store.current().trustDomain, undefined);
});

test('a federated bundle is held against the limits and its name', () => {
  const { store } = setUp({ limits: { ...defaultTrustLimits, maxBundles: 1, maxAuthorities: 1 } });
  store.apply(federated(partner, [partnerRoot]));
  assert.equal(store.apply(federated(partner, [])), 'changed', 'the same domain is not one more');
  assertRefused(store, federated('third.example', []), /2 federated bundles, at most 1/);
  assertRefused(store, federated(partner, [root, partnerRoot]), /2 authorities in the bundle/);
  assertRefused(store, federated(partner, [], [k1, k2]), /2 authorities in the JWT bundle/);
  const update = federated(partner, [partnerRoot]);
  assert.ok(update.kind === 'federated');
  assertRefused(store, { ...update, document: { ...update.document, x509: ownBundle } }, /filed wrongly/);
});
