import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { messageCodec } from '../../../src/grpc/protos.ts';
import {
  answerVersion,
  createCatalog,
  type JwtSvidsByAudience,
  type KnownDomains,
  noJwtSvids,
  noKnownDomains,
  type Resource,
  rememberDomains,
} from '../../../src/sds/resources.ts';
import type { X509Bundle } from '../../../src/spiffe/bundle.ts';
import { encodeCertificatesPem } from '../../../src/spiffe/certificate.ts';
import type { JwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { parseTrustDomain, type SpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import {
  createTestAuthority,
  type TestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';
import { unsignedJwtSvid } from '../../support/jwt.ts';
import { aliases } from './literal-catalog.ts';

const secretCodec = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret');
const validatorCodec = messageCodec('envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig');
const own = 'spiffe://example.org';
const partner = 'spiffe://partner.example';

let ca: TestAuthority;
let secondCa: TestAuthority;
let partnerCa: TestAuthority;
let standIn: TestAuthority;
let web: X509Svid;
let api: X509Svid;

before(async () => {
  ca = await createTestAuthority('example.org');
  secondCa = await createTestAuthority('example.org');
  partnerCa = await createTestAuthority('partner.example');
  standIn = await createTestAuthority('nobody.invalid');
  web = await ca.svid('spiffe://example.org/web', { hint: 'external' });
  api = await ca.svid('spiffe://example.org/api', { hint: 'internal' });
});

function snapshotOf(svids: readonly X509Svid[], ...bundles: readonly X509Bundle[]): TrustSnapshot {
  return {
    ...emptySnapshot,
    version: 1,
    trustDomain: svids.length === 0 ? undefined : parseTrustDomain('example.org'),
    svids,
    bundles: x509Bundles(...bundles),
  };
}

function catalogOf(
  snapshot: TrustSnapshot,
  known: KnownDomains = noKnownDomains,
  hint?: string,
  jwtSvids: JwtSvidsByAudience = noJwtSvids,
) {
  const options = { ...aliases, defaultSvidHint: hint };
  return createCatalog(snapshot, jwtSvids, rememberDomains(known, snapshot), standIn.certificate, options);
}

const jwtSvid = (spiffeId: SpiffeId, jti = '1', ttlMs = 300_000) =>
  unsignedJwtSvid({ audience: 'billing', spiffeId, now: testNow, ttlMs, jti });

function tokenOf(resource: Resource | undefined): string | undefined {
  assert.ok(resource !== undefined);
  return secretCodec.decode(resource.secret).genericSecret?.secret?.inlineString;
}

/** What a resource trusts, by the name of the trust domain; `trusted_ca` under an empty name. */
function trustOf(resource: Resource | undefined): Record<string, string> {
  assert.ok(resource !== undefined);
  const { validationContext } = secretCodec.decode(resource.secret);
  const config = validationContext?.customValidatorConfig?.typedConfig;
  if (config === undefined || config === null) {
    return { '': validationContext?.trustedCa?.inlineBytes?.toString('latin1') ?? '' };
  }
  const { trustDomains } = validatorCodec.decode(config.value);
  return Object.fromEntries(
    trustDomains.map(({ name, trustBundle }) => [name, trustBundle?.inlineBytes?.toString('latin1') ?? '']),
  );
}

function pem(...authorities: readonly TestAuthority[]): string {
  const certificates = authorities.map(({ certificate }) => certificate);
  return encodeCertificatesPem(
    certificates.sort((a, b) => (a.fingerprint < b.fingerprint ? -1 : 1)),
  ).toString('latin1');
}

const leafOf = (resource: Resource | undefined) =>
  secretCodec
    .decode(resource?.secret ?? Buffer.alloc(0))
    .tlsCertificate?.certificateChain?.inlineBytes?.toString('latin1');

describe('the resources of a snapshot', () => {
  const both = () =>
    snapshotOf([web, api], x509Bundle('example.org', [ca]), x509Bundle('partner.example', [partnerCa]));

  test('give the first SVID as the default and each by its ID', () => {
    const view = catalogOf(both()).view(true);
    assert.equal(leafOf(view.find('default')), encodeCertificatesPem(web.chain).toString('latin1'));
    assert.equal(leafOf(view.find(web.spiffeId)), encodeCertificatesPem(web.chain).toString('latin1'));
    assert.equal(leafOf(view.find(api.spiffeId)), encodeCertificatesPem(api.chain).toString('latin1'));
    assert.equal(view.find('spiffe://example.org/other'), undefined);
    assert.deepEqual(
      ['default', web.spiffeId].map(
        (name) => secretCodec.decode(view.find(name)?.secret ?? Buffer.alloc(0)).name,
      ),
      ['default', web.spiffeId],
    );
  });

  test('give an SVID by its hint, the first of several with one, and nothing for a hint that none has', async () => {
    const later = await ca.svid('spiffe://example.org/later', { hint: 'external' });
    const view = catalogOf({ ...both(), svids: [web, api, later] }).view(true);
    assert.equal(leafOf(view.find('hint:internal')), encodeCertificatesPem(api.chain).toString('latin1'));
    assert.equal(leafOf(view.find('hint:external')), encodeCertificatesPem(web.chain).toString('latin1'));
    assert.equal(view.find('hint:internal')?.kind, 'hint');
    assert.equal(view.find('hint:nobody'), undefined);
    assert.ok(view.everything().every(({ name }) => !name.startsWith('hint:')));
  });

  test('give the SVID with the configured hint as the default, and none when no SVID has it', () => {
    const hinted = catalogOf(both(), noKnownDomains, 'internal').view(true).find('default');
    assert.equal(leafOf(hinted), encodeCertificatesPem(api.chain).toString('latin1'));
    assert.equal(catalogOf(both(), noKnownDomains, 'nothing').view(true).find('default'), undefined);
  });

  test('give the first of two SVIDs with the same ID, once', async () => {
    const again = await ca.svid(web.spiffeId);
    const view = catalogOf(snapshotOf([web, again], x509Bundle('example.org', [ca]))).view(true);
    assert.equal(leafOf(view.find(web.spiffeId)), encodeCertificatesPem(web.chain).toString('latin1'));
    assert.deepEqual(
      view.everything().map(({ name }) => name),
      [web.spiffeId, own],
    );
  });

  test('give own, named and all bundles to the SPIFFE validator, each domain for itself', () => {
    const view = catalogOf(both()).view(true);
    assert.deepEqual(trustOf(view.find('ROOTCA')), { 'example.org': pem(ca) });
    assert.deepEqual(trustOf(view.find(partner)), { 'partner.example': pem(partnerCa) });
    assert.deepEqual(trustOf(view.find('ALL')), {
      'example.org': pem(ca),
      'partner.example': pem(partnerCa),
    });
  });

  test('give trusted_ca without the validator, and never a pool of all domains', () => {
    const view = catalogOf(both()).view(false);
    assert.deepEqual(trustOf(view.find('ROOTCA')), { '': pem(ca) });
    assert.deepEqual(trustOf(view.find(partner)), { '': pem(partnerCa) });
    assert.equal(view.find('ALL'), undefined);
  });

  test('are the same bytes whatever the order of bundles and authorities, and however often one occurs', () => {
    const one = catalogOf(
      snapshotOf([web], x509Bundle('example.org', [ca, secondCa]), x509Bundle('a.example', [partnerCa])),
    );
    const other = catalogOf(
      snapshotOf(
        [web],
        x509Bundle('a.example', [partnerCa, partnerCa]),
        x509Bundle('example.org', [secondCa, ca, ca]),
      ),
    );
    for (const name of ['ROOTCA', 'ALL', own]) {
      assert.deepEqual(one.view(true).find(name), other.view(true).find(name));
    }
    assert.deepEqual(Object.keys(trustOf(one.view(true).find('ALL'))), ['a.example', 'example.org']);
  });

  test('are everything without aliases, each once', () => {
    assert.deepEqual(
      catalogOf(both())
        .view(true)
        .everything()
        .map(({ name, kind }) => [name, kind]),
      [
        [web.spiffeId, 'spiffe_id'],
        [api.spiffeId, 'spiffe_id'],
        [own, 'trust_domain'],
        [partner, 'trust_domain'],
      ],
    );
  });

  test('are encoded once, however often they are asked for', () => {
    const catalog = catalogOf(both());
    for (const name of ['default', 'ROOTCA', 'ALL', web.spiffeId, partner]) {
      assert.ok(catalog.view(true).find(name) !== undefined);
      assert.equal(catalog.view(true).find(name), catalog.view(true).find(name));
    }
  });

  test('expire with their leaf; bundles never do', () => {
    const view = catalogOf(both()).view(true);
    assert.equal(view.find('default')?.expiresAt, web.chain[0].notAfter);
    assert.equal(view.find('ROOTCA')?.expiresAt, Number.POSITIVE_INFINITY);
  });

  test('give the JWT-SVID for an audience as a generic secret, never by asking for everything', () => {
    const svid = jwtSvid(web.spiffeId);
    const view = catalogOf(both(), noKnownDomains, undefined, new Map([['billing', svid]])).view(true);
    const resource = view.find('jwt:billing');
    assert.equal(tokenOf(resource), svid.token);
    assert.equal(resource?.expiresAt, svid.expiresAt);
    assert.equal(resource?.kind, 'jwt_svid');
    assert.equal(view.find('jwt:other'), undefined);
    assert.ok(view.everything().every(({ kind }) => kind !== 'jwt_svid'));
  });

  test('give no JWT-SVID of an identity that is not the default one', () => {
    const ofApi = new Map([['billing', jwtSvid(api.spiffeId)]]);
    assert.equal(
      catalogOf(both(), noKnownDomains, undefined, ofApi).view(true).find('jwt:billing'),
      undefined,
    );
    const hinted = catalogOf(both(), noKnownDomains, 'internal', ofApi).view(true).find('jwt:billing');
    assert.ok(hinted !== undefined);
    const revoked = catalogOf(
      snapshotOf([], x509Bundle('example.org', [ca])),
      noKnownDomains,
      undefined,
      ofApi,
    );
    assert.equal(revoked.view(true).find('jwt:billing'), undefined);
  });

  test('tell nothing of a token in its version', () => {
    const version = (svid: JwtSvid) =>
      catalogOf(both(), noKnownDomains, undefined, new Map([['billing', svid]]))
        .view(true)
        .find('jwt:billing')?.version;
    const svid = jwtSvid(web.spiffeId);
    const signedAnew = { ...svid, token: `${svid.token.slice(0, svid.token.lastIndexOf('.'))}.YW5vdGhlcg` };
    assert.equal(version(svid), version(signedAnew), 'the signature is no part of it');
    assert.notEqual(version(svid), version(jwtSvid(web.spiffeId, '2')));
  });

  test('do not count as known before X.509 material has been seen, though JWT bundles have', () => {
    assert.equal(catalogOf({ ...emptySnapshot, version: 1 }).ready, false);
    assert.equal(catalogOf(both()).ready, true);
  });
});

describe('a version', () => {
  test('is equal for equal content, and another for another name, SVID, bundle or validator', async () => {
    const snapshot = snapshotOf([web], x509Bundle('example.org', [ca]));
    const one = catalogOf(snapshot).view(true);
    const again = catalogOf({ ...snapshot, version: 7 }).view(true);
    for (const name of ['default', 'ROOTCA', web.spiffeId]) {
      assert.equal(one.find(name)?.version, again.find(name)?.version);
    }
    const rotated = await ca.svid(web.spiffeId);
    const versions = [
      one.find('default'),
      one.find(web.spiffeId),
      one.find('ROOTCA'),
      one.find(own),
      catalogOf(snapshot).view(false).find('ROOTCA'),
      catalogOf(snapshotOf([rotated], x509Bundle('example.org', [ca])))
        .view(true)
        .find('default'),
      catalogOf(snapshotOf([web], x509Bundle('example.org', [ca, secondCa])))
        .view(true)
        .find('ROOTCA'),
    ].map((resource) => resource?.version);
    assert.ok(versions.every((version) => /^[0-9a-f]{32}$/.test(version ?? '')));
    assert.equal(new Set(versions).size, versions.length);
  });

  test('of an SVID tells nothing of its key', () => {
    const snapshot = snapshotOf([web], x509Bundle('example.org', [ca]));
    const otherKey = snapshotOf([{ ...web, privateKey: api.privateKey }], x509Bundle('example.org', [ca]));
    assert.equal(
      catalogOf(snapshot).view(true).find('default')?.version,
      catalogOf(otherKey).view(true).find('default')?.version,
    );
  });

  test('of an answer is a digest of the names and versions in it', () => {
    const view = catalogOf(snapshotOf([web], x509Bundle('example.org', [ca]))).view(true);
    const [svid, bundle] = [view.find('default'), view.find('ROOTCA')];
    assert.ok(svid !== undefined && bundle !== undefined);
    assert.notEqual(answerVersion([svid]), answerVersion([svid, bundle]));
    assert.equal(answerVersion([svid, bundle]), answerVersion([svid, bundle]));
  });
});

describe('the end of trust', () => {
  const unsatisfiable = () => pem(standIn);
  const before = () =>
    snapshotOf([web], x509Bundle('example.org', [ca]), x509Bundle('partner.example', [partnerCa]));
  const knownBefore = () => rememberDomains(noKnownDomains, before());

  test('in a domain takes it out of ALL and leaves a bundle nobody satisfies under its name', () => {
    const view = catalogOf(snapshotOf([web], x509Bundle('example.org', [ca])), knownBefore()).view(true);
    assert.deepEqual(trustOf(view.find('ALL')), { 'example.org': pem(ca) });
    assert.deepEqual(trustOf(view.find(partner)), { 'partner.example': unsatisfiable() });
    assert.equal(view.find(partner)?.gone, true);
    assert.deepEqual(
      view.everything().map(({ name }) => name),
      [web.spiffeId, own],
    );
  });

  test('is put as a trusted_ca that nobody satisfies without the validator', () => {
    const view = catalogOf(snapshotOf([web], x509Bundle('example.org', [ca])), knownBefore()).view(false);
    assert.deepEqual(trustOf(view.find(partner)), { '': unsatisfiable() });
  });

  test('by an emptied bundle is the same, but the domain is not gone', () => {
    const emptied = snapshotOf([web], x509Bundle('example.org', [ca]), x509Bundle('partner.example', []));
    const view = catalogOf(emptied).view(true);
    assert.deepEqual(trustOf(view.find('ALL')), { 'example.org': pem(ca) });
    assert.deepEqual(trustOf(view.find(partner)), { 'partner.example': unsatisfiable() });
    assert.equal(view.find(partner)?.gone, false);
  });

  test('in every domain, when the identity is withdrawn, reaches the aliases too', () => {
    const view = catalogOf(snapshotOf([]), knownBefore()).view(true);
    assert.equal(view.find('default'), undefined);
    assert.deepEqual(trustOf(view.find('ROOTCA')), { 'example.org': unsatisfiable() });
    assert.deepEqual(trustOf(view.find('ALL')), { 'example.org': unsatisfiable() });
    assert.equal(view.find('ALL')?.gone, true);
    assert.deepEqual(view.everything(), []);
  });

  test('is not made up for a domain that was never known', () => {
    const view = catalogOf(before()).view(true);
    assert.equal(view.find('spiffe://never.example'), undefined);
    assert.equal(catalogOf(snapshotOf([])).view(true).find('ROOTCA'), undefined);
    assert.equal(catalogOf(snapshotOf([])).view(true).find('ALL'), undefined);
  });

  test('never puts an empty bundle into any resource', () => {
    const emptied = snapshotOf([web], x509Bundle('example.org', []), x509Bundle('partner.example', []));
    for (const validator of [true, false]) {
      const view = catalogOf(emptied).view(validator);
      for (const name of ['ROOTCA', own, partner, ...(validator ? ['ALL'] : [])]) {
        for (const bundle of Object.values(trustOf(view.find(name)))) assert.notEqual(bundle, '');
      }
    }
  });

  test('remembers a bounded number of domains, and always those that are held', () => {
    const many = Array.from({ length: 5000 }, (_, i) => parseTrustDomain(`d${i}.example`));
    const known = rememberDomains({ own: undefined, all: new Set(many) }, before());
    assert.equal(known.all.size, 4096);
    assert.ok(known.all.has(parseTrustDomain('partner.example')));
    assert.ok(known.all.has(parseTrustDomain('d4999.example')));
    assert.ok(!known.all.has(parseTrustDomain('d0.example')));
  });
});
