import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import { buildSet, sameSet } from '../../../src/outputs/output-set.ts';
import { parsePemCertificates } from '../../../src/spiffe/certificate.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import { testNow } from '../../support/ca.ts';
import { unsignedJwtSvid } from '../../support/jwt.ts';
import { newSvid, own, partner, snapshotOf, specOf, web, withPartner } from './sets.ts';

const spec = specOf('/nowhere', { federated: true, jwt: [{ audience: 'billing', file: 'jwt.token' }] });
const token = unsignedJwtSvid({
  audience: 'billing',
  spiffeId: parseSpiffeId(web),
  now: testNow,
  ttlMs: 60_000,
  jti: '1',
});

describe('a set of files', () => {
  it('holds chain, key, bundle, one file a federated domain, and the tokens', async () => {
    const svid = await newSvid();
    const files = buildSet(spec, {
      svid,
      snapshot: snapshotOf(svid, { bundles: withPartner }),
      tokens: new Map([['billing', token]]),
    });
    assert.deepEqual(
      files.map(({ name, secret }) => `${name}${secret ? ' secret' : ''}`),
      ['svid.pem', 'svid.key secret', 'bundle.pem', 'federated/partner.example.pem', 'jwt.token secret'],
    );
    const [chain, key, bundle, federated, jwt] = files.map(({ content }) => content.toString());
    const leaf = new X509Certificate(chain ?? '');
    assert.ok(leaf.checkPrivateKey(createPrivateKey(key ?? '')));
    assert.match(key ?? '', /^-----BEGIN PRIVATE KEY-----\n/);
    const fingerprints = (pem = ''): readonly string[] =>
      parsePemCertificates(pem, 10).map(({ fingerprint }) => fingerprint);
    assert.deepEqual(fingerprints(bundle), [own.certificate.fingerprint]);
    assert.deepEqual(fingerprints(federated), [partner.certificate.fingerprint]);
    assert.equal(jwt, token.token);
  });

  it('never pools another domain into the bundle, and leaves it out unless asked', async () => {
    const svid = await newSvid();
    const files = buildSet(specOf('/nowhere'), {
      svid,
      snapshot: snapshotOf(svid, { bundles: withPartner }),
      tokens: new Map(),
    });
    assert.deepEqual(
      files.map(({ name }) => name),
      ['svid.pem', 'svid.key', 'bundle.pem'],
    );
    assert.equal(parsePemCertificates(files[2]?.content.toString() ?? '', 10).length, 1);
  });

  it('holds the intermediates behind the leaf', async () => {
    const intermediate = await own.intermediate();
    const svid = await intermediate.svid(web, { through: [intermediate] });
    const [chain] = buildSet(specOf('/nowhere'), { svid, snapshot: snapshotOf(svid), tokens: new Map() });
    assert.deepEqual(
      parsePemCertificates(chain?.content.toString() ?? '', 10).map(({ fingerprint }) => fingerprint),
      svid.chain.map(({ fingerprint }) => fingerprint),
    );
  });

  it('is the same as one of the same content, and no other', async () => {
    const [svid, other] = [await newSvid(), await newSvid()];
    const set = (of: typeof svid) =>
      buildSet(specOf('/nowhere'), { svid: of, snapshot: snapshotOf(of), tokens: new Map() });
    assert.ok(sameSet(set(svid), set(svid)));
    assert.ok(!sameSet(set(svid), set(other)));
    assert.ok(!sameSet(set(svid), set(svid).slice(1)));
  });
});
