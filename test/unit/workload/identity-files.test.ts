import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { before, describe, test } from 'node:test';
import fc from 'fast-check';
import { AppError, ConfigError } from '../../../src/runtime/errors.ts';
import type { FileEvent } from '../../../src/runtime/file-watch.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { formatBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import {
  type FileIdentity,
  type IdentityFileNames,
  parseIdentityFiles,
  pathsOf,
} from '../../../src/workload/identity-files.ts';
import {
  createTestAuthority,
  type Issued,
  type TestAuthority,
  testNow,
  x509Bundle,
} from '../../support/ca.ts';

const own = parseTrustDomain('example.org');
const partner = parseTrustDomain('partner.example');

const names: IdentityFileNames = {
  certificate: '/id/svid.pem',
  privateKey: '/id/svid.key',
  bundle: '/id/bundle.pem',
  federatedBundles: [{ trustDomain: partner, file: '/id/partner.pem' }],
};

type Contents = {
  certificate: string | Buffer;
  privateKey: Buffer;
  bundle: string | Buffer;
  partner: string | Buffer;
};
type Changes = { [K in keyof Contents]?: string | Buffer | FileEvent };

let ca: TestAuthority;
let partnerCa: TestAuthority;
let leaf: Issued;
let good: Contents;

before(async () => {
  ca = await createTestAuthority(own);
  partnerCa = await createTestAuthority(partner);
  leaf = await ca.leaf();
  good = {
    certificate: encodeCertificatesPem([leaf.certificate]),
    privateKey: encodePrivateKeyPem(leaf.privateKey),
    bundle: encodeCertificatesPem([ca.certificate]),
    partner: encodeCertificatesPem([partnerCa.certificate]),
  };
});

function parse(changes: Changes = {}, now = testNow): FileIdentity {
  const { certificate, privateKey, bundle, partner: partnerBundle } = { ...good, ...changes };
  return parseIdentityFiles(names, [certificate, privateKey, bundle, partnerBundle].map(eventOf), now);
}

function eventOf(content: string | Buffer | FileEvent): FileEvent {
  return typeof content === 'string' || Buffer.isBuffer(content)
    ? { kind: 'content', bytes: Buffer.from(content), mode: 0o600 }
    : content;
}

/** Every problem, as an operator reads it. */
function problems(changes: Changes, now = testNow): readonly string[] {
  try {
    parse(changes, now);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.ok(!error.message.includes('PRIVATE KEY-----'));
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
  throw new assert.AssertionError({ message: 'the files were taken' });
}

describe('identity files', () => {
  test('with chain, key and bundles in PEM make an identity without JWT authorities', async () => {
    const intermediate = await ca.intermediate();
    const below = await intermediate.leaf();
    const { x509, jwtBundles, warnings } = parse({
      certificate: encodeCertificatesPem([below.certificate, intermediate.certificate]),
      privateKey: encodePrivateKeyPem(below.privateKey),
    });
    const [svid] = x509.svids;
    assert.equal(svid.spiffeId, 'spiffe://example.org/workload');
    assert.equal(svid.chain.length, 2);
    assert.deepEqual(svid.privateKey, below.privateKey);
    assert.equal(svid.hint, '');
    assert.deepEqual([...x509.bundles.keys()], [own, partner]);
    assert.equal(x509.bundles.get(own)?.authorities[0]?.fingerprint, ca.certificate.fingerprint);
    assert.equal(x509.bundles.get(partner)?.authorities[0]?.fingerprint, partnerCa.certificate.fingerprint);
    assert.equal(jwtBundles.size, 0);
    assert.deepEqual(warnings, []);
    assert.deepEqual(pathsOf(names), ['/id/svid.pem', '/id/svid.key', '/id/bundle.pem', '/id/partner.pem']);
  });

  test('with SPIFFE bundle documents have JWT authorities for those domains, too', async () => {
    const signer = await createJwtSigner();
    const document = (domain: typeof own, authority: TestAuthority): string =>
      `\n${formatBundleDocument({
        x509: x509Bundle(domain, [authority]),
        jwt: { trustDomain: domain, authorities: [signer.authority] },
        sequence: 12n,
      })}`;
    const mixed = parse({ partner: document(partner, partnerCa) });
    assert.deepEqual([...mixed.jwtBundles.keys()], [partner]);
    const both = parse({ bundle: document(own, ca), partner: document(partner, partnerCa) });
    assert.deepEqual([...both.jwtBundles.keys()], [own, partner]);
    assert.equal(both.jwtBundles.get(own)?.authorities[0]?.keyId, signer.authority.keyId);
    assert.equal(both.x509.bundles.get(own)?.authorities.length, 1);
    assert.equal(both.x509.bundles.get(own)?.sequence, 12n);
  });

  test('take the key in the traditional form as well', () => {
    const key = createPrivateKey({ key: leaf.privateKey, format: 'der', type: 'pkcs8' });
    const { x509 } = parse({ privateKey: key.export({ type: 'sec1', format: 'pem' }) });
    assert.deepEqual(x509.svids[0].privateKey, leaf.privateKey);
  });

  test('with an empty federated bundle trust nothing of that domain, and know it', () => {
    for (const empty of ['', '\n', '{"keys":[]}']) {
      assert.deepEqual(parse({ partner: empty }).x509.bundles.get(partner)?.authorities, []);
    }
  });

  test('are refused while key and certificate are not of one pair, naming both files', async () => {
    const other = await ca.leaf();
    assert.deepEqual(problems({ privateKey: encodePrivateKeyPem(other.privateKey) }), [
      'identity.files.private_key: /id/svid.key with /id/svid.pem: private key of X509-SVID spiffe://example.org/workload does not match its certificate; write both anew',
    ]);
  });

  test('that are missing or closed are each named with what to do', () => {
    assert.deepEqual(
      problems({
        certificate: { kind: 'missing' },
        privateKey: { kind: 'unreadable', message: '/id/svid.key may not be read by this process (EACCES)' },
        partner: { kind: 'missing' },
      }),
      [
        'identity.files.certificate: /id/svid.pem does not exist: put the file there, or correct the path',
        'identity.files.private_key: /id/svid.key may not be read by this process (EACCES)',
        'identity.files.federated_bundles.partner.example: /id/partner.pem does not exist: put the file there, or correct the path',
      ],
    );
  });

  test('are refused for a leaf that has expired or is not valid yet, and taken in between', async () => {
    const { notBefore, notAfter } = leaf.certificate;
    assert.match(
      problems({}, notAfter + 1)[0] ?? '',
      /svid\.pem: not usable as an X509-SVID: certificate expired at/,
    );
    assert.match(problems({}, notBefore - 1)[0] ?? '', /not valid before/);
    assert.equal(parse({}, notAfter).x509.svids.length, 1);
    assert.equal(parse({}, notBefore).x509.svids.length, 1);
  });

  const broken: readonly (readonly [string, () => Promise<Changes> | Changes, RegExp])[] = [
    ['an empty certificate file', () => ({ certificate: '' }), /certificate: .*file is empty/],
    [
      'a leaf that is half written',
      () => ({ certificate: good.certificate.toString().slice(0, 200) }),
      /does not end/,
    ],
    [
      'a key in the certificate file',
      () => ({ certificate: good.privateKey }),
      /only CERTIFICATE is expected/,
    ],
    ['an authority first', () => ({ certificate: good.bundle }), /is a signing certificate/],
    [
      'an intermediate that may not sign',
      async () => ({ certificate: encodeCertificatesPem([leaf.certificate, (await ca.leaf()).certificate]) }),
      /intermediate that may not sign/,
    ],
    ['no key', () => ({ privateKey: '' }), /private_key: \/id\/svid\.key: .*exactly one private key/],
    [
      'an own bundle with nothing in it',
      () => ({ bundle: '' }),
      /bundle: \/id\/bundle\.pem: .*no X\.509 authority/,
    ],
    ['an own bundle document with no authority', () => ({ bundle: '{"keys":[]}' }), /no X\.509 authority/],
    [
      'a federated bundle that is neither PEM nor JSON',
      () => ({ partner: 'hello' }),
      /partner\.example: .*no CERTIFICATE/,
    ],
    ['a bundle document that is cut short', () => ({ partner: '{"keys":[' }), /is not JSON/],
  ];
  for (const [what, changes, message] of broken) {
    test(`with ${what} are refused`, async () => {
      const found = problems(await changes());
      assert.equal(found.length, 1);
      assert.match(found[0] ?? '', message);
    });
  }

  test('that federate the own domain with itself are refused', () => {
    const self = { ...names, federatedBundles: [{ trustDomain: own, file: '/id/partner.pem' }] };
    const events = [good.certificate, good.privateKey, good.bundle, good.bundle].map(eventOf);
    assert.throws(() => parseIdentityFiles(self, events, testNow), /example\.org is the own trust domain/);
  });

  test('are taken with a warning when others may read the key, or the bundle does not hold the issuer', async () => {
    const open: FileEvent = { kind: 'content', bytes: good.privateKey, mode: 0o644 };
    assert.match(parse({ privateKey: open }).warnings[0] ?? '', /svid\.key may be read by every user/);
    const group: FileEvent = { kind: 'content', bytes: good.privateKey, mode: 0o640 };
    assert.deepEqual(parse({ privateKey: group }).warnings, []);
    const other = await createTestAuthority(own);
    const { warnings } = parse({ bundle: encodeCertificatesPem([other.certificate]) });
    assert.match(warnings[0] ?? '', /svid\.pem is not trusted by \/id\/bundle\.pem/);
  });

  test('of any content never throw anything but a ConfigError, nor quote the key', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const cuts = [good.certificate, good.bundle, pem].map((text) =>
      fc.nat(text.length).map((at) => Buffer.from(text).subarray(0, at).toString()),
    );
    const content = fc.oneof(fc.string(), fc.json(), ...cuts);
    fc.assert(
      fc.property(content, content, content, content, (certificate, key, bundle, federated) => {
        try {
          parse({ certificate, privateKey: key, bundle, partner: federated });
        } catch (error) {
          assert.ok(error instanceof AppError && error instanceof ConfigError);
          assert.ok(!error.message.includes(pem.slice(40, 60)));
        }
      }),
    );
  });
});
