import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { createJwtSigner, createX509Authority } from '../../../src/spiffe/authority.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { decodeJwtBundles, decodeJwtSvids, decodeX509Context } from '../../../src/workload/decode.ts';
import { createTestAuthority } from '../../support/ca.ts';

const now = Date.parse('2026-01-01T00:00:00Z');
const ttlMs = 3_600_000;
const own = parseTrustDomain('own.test');
const partner = parseTrustDomain('partner.test');
const web = parseSpiffeId('spiffe://own.test/web');

const authority = await createX509Authority({ trustDomain: own, ttlMs, now });
const partnerAuthority = await createX509Authority({ trustDomain: partner, ttlMs, now });
const signer = await createJwtSigner({ keyId: 'one' });

async function wireSvid(changes: object = {}, path = '/web') {
  const svid = await authority.issue({ spiffeId: parseSpiffeId(`spiffe://own.test${path}`), ttlMs, now });
  return {
    spiffeId: svid.spiffeId,
    x509Svid: svid.chain[0].der,
    x509SvidKey: svid.privateKey,
    bundle: authority.certificate.der,
    hint: '',
    ...changes,
  };
}

const x509 = messageCodec('X509SVIDResponse');
const jwtBundles = messageCodec('JWTBundlesResponse');
const jwtSvids = messageCodec('JWTSVIDResponse');

const refused =
  (message: RegExp, kind = MalformedError) =>
  (error: unknown) => {
    assert.ok(error instanceof kind, String(error));
    assert.match(error.message, message);
    return true;
  };

/** A CRL with nothing in it but its issuer: all that the decoder looks at. */
function crlOf(issuerDer: Buffer): Buffer {
  const element = (tag: number, content: Buffer) => {
    const length = content.length < 0x80 ? [content.length] : [0x81, content.length];
    return Buffer.concat([Buffer.from([tag, ...length]), content]);
  };
  const algorithm = element(0x30, Buffer.from('06082a8648ce3d040302', 'hex'));
  const tbs = element(0x30, Buffer.concat([Buffer.from('020101', 'hex'), algorithm, issuerDer]));
  return element(0x30, Buffer.concat([tbs, algorithm, Buffer.from('030100', 'hex')]));
}

describe('X509SVIDResponse', () => {
  it('becomes SVIDs in order, with the own and the federated bundles', async () => {
    const bytes = x509.encode({
      svids: [await wireSvid(), await wireSvid({}, '/api')],
      federatedBundles: { 'spiffe://partner.test': partnerAuthority.certificate.der },
    });
    const context = decodeX509Context(bytes, now);
    assert.deepEqual(
      context.svids.map(({ spiffeId }) => spiffeId),
      [web, 'spiffe://own.test/api'],
    );
    assert.deepEqual([...context.bundles.keys()], [own, partner]);
    assert.deepEqual(
      context.bundles.get(partner)?.authorities.map(({ fingerprint }) => fingerprint),
      [partnerAuthority.certificate.fingerprint],
    );
  });

  it('takes bare trust domain names as keys, and refuses one domain under two keys', async () => {
    const svids = [await wireSvid()];
    const bare = x509.encode({
      svids,
      federatedBundles: { 'partner.test': partnerAuthority.certificate.der },
    });
    assert.ok(decodeX509Context(bare, now).bundles.has(partner));
    const twice = x509.encode({
      svids,
      federatedBundles: {
        'partner.test': partnerAuthority.certificate.der,
        'spiffe://partner.test': partnerAuthority.certificate.der,
      },
    });
    assert.throws(() => decodeX509Context(twice, now), refused(/two bundles for partner\.test/));
  });

  it('reads an empty federated bundle as: trust nothing of that domain', async () => {
    const bytes = x509.encode({
      svids: [await wireSvid()],
      federatedBundles: { 'spiffe://partner.test': Buffer.alloc(0) },
    });
    assert.deepEqual(decodeX509Context(bytes, now).bundles.get(partner)?.authorities, []);
  });

  it("takes the own domain's bundle from the SVID, not from the federated ones", async () => {
    const bytes = x509.encode({
      svids: [await wireSvid()],
      federatedBundles: { 'spiffe://own.test': partnerAuthority.certificate.der },
    });
    assert.deepEqual(
      decodeX509Context(bytes, now)
        .bundles.get(own)
        ?.authorities.map(({ fingerprint }) => fingerprint),
      [authority.certificate.fingerprint],
    );
  });

  it('keeps the first of several SVIDs with one hint, and all without a hint', async () => {
    const hints: [string, string][] = [
      ['/a', 'internal'],
      ['/b', 'external'],
      ['/c', 'internal'],
      ['/d', ''],
      ['/e', ''],
    ];
    const svids = await Promise.all(hints.map(([path, hint]) => wireSvid({ hint }, path)));
    assert.deepEqual(
      decodeX509Context(x509.encode({ svids }), now).svids.map(({ spiffeId }) => spiffeId.slice(-1)),
      ['a', 'b', 'd', 'e'],
    );
  });

  it('gives a CRL to the bundle whose authority issued it', async () => {
    const crl = crlOf(partnerAuthority.certificate.subjectDer);
    const bytes = x509.encode({
      svids: [await wireSvid()],
      federatedBundles: { 'spiffe://partner.test': partnerAuthority.certificate.der },
      crl: [crl],
    });
    const { bundles } = decodeX509Context(bytes, now);
    assert.deepEqual(bundles.get(partner)?.crls, [crl]);
    assert.deepEqual(bundles.get(own)?.crls, []);
  });

  it('gives the CRL of an intermediate to the bundle of our own domain', async () => {
    const times = { notBefore: now - ttlMs, notAfter: now + ttlMs };
    const ca = await createTestAuthority('own.test', times);
    const intermediate = await ca.intermediate(times);
    const leaf = await intermediate.leaf({ uris: [web], ...times });
    const crl = crlOf(intermediate.certificate.subjectDer);
    const bytes = x509.encode({
      svids: [
        {
          spiffeId: web,
          x509Svid: Buffer.concat([leaf.certificate.der, intermediate.certificate.der]),
          x509SvidKey: leaf.privateKey,
          bundle: ca.certificate.der,
        },
      ],
      federatedBundles: { 'spiffe://partner.test': partnerAuthority.certificate.der },
      crl: [crl],
    });
    const { bundles } = decodeX509Context(bytes, now);
    assert.deepEqual(bundles.get(own)?.crls, [crl]);
    assert.deepEqual(bundles.get(partner)?.crls, []);
  });

  const broken: readonly [string, () => Promise<object>, RegExp][] = [
    ['without SVIDs', async () => ({ svids: [] }), /no X509-SVID/],
    ['with an SVID without ID', async () => ({ svids: [await wireSvid({ spiffeId: '' })] }), /no SPIFFE ID/],
    [
      'without certificate',
      async () => ({ svids: [await wireSvid({ x509Svid: Buffer.alloc(0) })] }),
      /certificate is empty/,
    ],
    [
      'without key',
      async () => ({ svids: [await wireSvid({ x509SvidKey: Buffer.alloc(0) })] }),
      /private key is empty/,
    ],
    [
      'without bundle',
      async () => ({ svids: [await wireSvid({ bundle: Buffer.alloc(0) })] }),
      /bundle is empty/,
    ],
    [
      'whose second SVID alone lacks its key',
      async () => ({ svids: [await wireSvid(), await wireSvid({ x509SvidKey: Buffer.alloc(0) })] }),
      /private key is empty/,
    ],
    [
      'with another ID than its certificate',
      async () => ({ svids: [await wireSvid({ spiffeId: 'spiffe://own.test/x' })] }),
      /own\.test/,
    ],
    [
      'with the key of another SVID',
      async () => ({ svids: [await wireSvid({ x509SvidKey: (await wireSvid()).x509SvidKey })] }),
      /key/,
    ],
    [
      'with a certificate that is none',
      async () => ({ svids: [await wireSvid({ x509Svid: Buffer.from('x') })] }),
      /own\.test\/web: /,
    ],
    [
      'with a federated bundle that is none',
      async () => ({ svids: [await wireSvid()], federatedBundles: { 'partner.test': Buffer.from('x') } }),
      /^partner\.test: /,
    ],
    [
      'with a key of the bundle map that is no trust domain',
      async () => ({ svids: [await wireSvid()], federatedBundles: { 'Partner.test': Buffer.alloc(0) } }),
      /key of the bundle map: trust domain contains upper case/,
    ],
    [
      'with a CRL that is none',
      async () => ({ svids: [await wireSvid()], crl: [Buffer.from('x')] }),
      /^a CRL: /,
    ],
  ];
  for (const [what, message, text] of broken) {
    it(`is refused whole ${what}`, async () => {
      const bytes = x509.encode(await message());
      assert.throws(() => decodeX509Context(bytes, now), refused(text));
    });
  }

  it('is refused when an SVID of it has expired', async () => {
    const bytes = x509.encode({ svids: [await wireSvid()] });
    assert.throws(() => decodeX509Context(bytes, now + ttlMs + 1000), refused(/expired/));
  });

  it('is refused beyond 1000 SVIDs, before any is parsed', () => {
    const bytes = x509.encode({ svids: Array.from({ length: 1001 }, () => ({ spiffeId: 'x' })) });
    assert.throws(() => decodeX509Context(bytes, now), refused(/1001 X509-SVIDs, at most 1000/, LimitError));
  });

  it('never puts the private key into an error', async () => {
    const { x509SvidKey } = await wireSvid();
    const garbled = Buffer.concat([x509SvidKey.subarray(0, 40), Buffer.from('SECRET-SECRET-SECRET')]);
    const bytes = x509.encode({ svids: [await wireSvid({ x509SvidKey: garbled })] });
    assert.throws(
      () => decodeX509Context(bytes, now),
      (error) => error instanceof MalformedError && !/SECRET/.test(`${error.stack}${String(error.cause)}`),
    );
  });
});

const jwks = (...keys: object[]) => Buffer.from(JSON.stringify({ keys }));

describe('JWTBundlesResponse', () => {
  it('becomes a set of bundles; keys need no use, as SPIRE sends them', () => {
    const bytes = jwtBundles.encode({
      bundles: { 'spiffe://own.test': jwks({ ...signer.authority.jwk }), 'partner.test': jwks() },
    });
    const bundles = decodeJwtBundles(bytes);
    assert.deepEqual(
      bundles.get(own)?.authorities.map(({ keyId }) => keyId),
      ['one'],
    );
    assert.deepEqual(bundles.get(partner)?.authorities, []);
  });

  it('keeps the other keys when one is of an unknown type', () => {
    const bytes = jwtBundles.encode({
      bundles: { 'own.test': jwks({ kty: 'AKP', kid: 'new' }, { ...signer.authority.jwk }) },
    });
    assert.equal(decodeJwtBundles(bytes).get(own)?.authorities.length, 1);
  });

  it('is refused without a bundle, with one that is no JWKS or not UTF-8', () => {
    assert.throws(() => decodeJwtBundles(jwtBundles.encode({})), refused(/no JWT bundle/));
    const noJson = jwtBundles.encode({ bundles: { 'own.test': Buffer.from('{') } });
    assert.throws(() => decodeJwtBundles(noJson), refused(/^own\.test: /));
    const noText = jwtBundles.encode({ bundles: { 'own.test': Buffer.from([0xff]) } });
    assert.throws(() => decodeJwtBundles(noText), refused(/^own\.test: not UTF-8/));
  });
});

describe('JWTSVIDResponse', () => {
  const request = { audiences: ['billing', 'ledger'] };
  async function wireJwt(changes: object = {}, audiences: readonly string[] = request.audiences) {
    const { token } = await signer.sign({ spiffeId: web, audiences, ttlMs: 60_000, now });
    return { spiffeId: web, svid: token, hint: '', ...changes };
  }

  it('becomes JWT-SVIDs, of several with one hint the first', async () => {
    const bytes = jwtSvids.encode({ svids: [await wireJwt({ hint: 'a' }), await wireJwt({ hint: 'a' })] });
    const [svid, ...others] = decodeJwtSvids(bytes, request, now);
    assert.deepEqual(
      [svid?.spiffeId, svid?.audiences, svid?.hint, others],
      [web, request.audiences, 'a', []],
    );
  });

  const broken: readonly [string, () => Promise<object[]>, RegExp][] = [
    ['without JWT-SVIDs', async () => [], /no JWT-SVID/],
    ['without an ID', async () => [await wireJwt({ spiffeId: '' })], /no SPIFFE ID/],
    ['without a token', async () => [await wireJwt({ svid: '' })], /token is empty/],
    ['with a token that is none', async () => [await wireJwt({ svid: 'a.b' })], /malformed/],
    [
      'with another subject',
      async () => [await wireJwt({ spiffeId: 'spiffe://own.test/x' })],
      /another subject/,
    ],
    ['for another audience', async () => [await wireJwt({}, ['billing'])], /lacks an audience/],
  ];
  for (const [what, svids, text] of broken) {
    it(`is refused ${what}`, async () => {
      const bytes = jwtSvids.encode({ svids: await svids() });
      assert.throws(() => decodeJwtSvids(bytes, request, now), refused(text));
    });
  }

  it('is refused with an expired token or with an ID that was not asked for', async () => {
    const bytes = jwtSvids.encode({ svids: [await wireJwt()] });
    assert.throws(() => decodeJwtSvids(bytes, request, now + 60_000), refused(/has expired/));
    const spiffeId = parseSpiffeId('spiffe://own.test/api');
    assert.throws(() => decodeJwtSvids(bytes, { ...request, spiffeId }, now), refused(/not asked for/));
  });
});

it('decoders never throw anything but AppError, whatever the bytes', async () => {
  const good = [
    x509.encode({
      svids: [await wireSvid()],
      federatedBundles: { 'partner.test': partnerAuthority.certificate.der },
      crl: [crlOf(authority.certificate.subjectDer)],
    }),
    jwtBundles.encode({ bundles: { 'own.test': jwks({ ...signer.authority.jwk }) } }),
    jwtSvids.encode({ svids: [{ spiffeId: web, svid: 'a.b.c', hint: 'h' }] }),
  ];
  const decoders = [
    (bytes: Buffer) => decodeX509Context(bytes, now),
    decodeJwtBundles,
    (bytes: Buffer) => decodeJwtSvids(bytes, { audiences: ['a'] }, now),
  ];
  const edit = fc.record({ at: fc.nat(), byte: fc.nat(255) });
  const garbled = fc
    .tuple(fc.constantFrom(...good), fc.array(edit, { maxLength: 4 }), fc.nat())
    .map(([bytes, edits, cut]) => {
      const copy = Buffer.from(bytes);
      for (const { at, byte } of edits) copy[at % copy.length] = byte;
      return cut % 3 === 0 ? copy.subarray(0, cut % copy.length) : copy;
    });
  const random = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
  const message = fc
    .record({
      svids: fc.array(
        fc.record({
          spiffeId: fc.constantFrom('', 'spiffe://own.test/web', 'x'),
          x509Svid: fc.uint8Array({ maxLength: 40 }),
          x509SvidKey: fc.uint8Array({ maxLength: 40 }),
          bundle: fc.uint8Array({ maxLength: 40 }),
          hint: fc.string({ maxLength: 3 }),
        }),
        { maxLength: 3 },
      ),
      federatedBundles: fc.dictionary(fc.string({ maxLength: 12 }), fc.uint8Array({ maxLength: 20 })),
    })
    .map((value) => x509.encode(value));
  fc.assert(
    fc.property(fc.oneof(garbled, random, message), (bytes) => {
      for (const decode of decoders) {
        try {
          decode(bytes);
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      }
    }),
    { numRuns: 1000 },
  );
});
