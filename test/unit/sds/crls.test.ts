import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type CrlChoice, chooseCrls, crlMarginMs } from '../../../src/sds/crls.ts';
import type { X509Bundle } from '../../../src/spiffe/bundle.ts';
import type { Certificate } from '../../../src/spiffe/certificate.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { emptySnapshot } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, testNow, x509Bundle, x509Bundles } from '../../support/ca.ts';

const own = parseTrustDomain('example.org');
const partner = parseTrustDomain('partner.example');
const hourMs = 3_600_000;

const [root, sibling, partnerRoot] = await Promise.all([
  createTestAuthority(own),
  createTestAuthority(own),
  createTestAuthority(partner),
]);
const rootCrl = await root.crl([(await root.leaf()).certificate]);
const siblingCrl = await sibling.crl([]);

function choose(
  bundles: readonly X509Bundle[],
  intermediates: readonly Certificate[] = [],
  now = testNow,
): CrlChoice {
  return chooseCrls({ ...emptySnapshot, intermediates, bundles: x509Bundles(...bundles) }, now);
}

const leftOut = ({ leftOut }: CrlChoice): string => leftOut.get(own) ?? '';

describe('the CRLs of a trust domain', () => {
  test('go to Envoy when its only authority has one, and until shortly before that is out of date', () => {
    const choice = choose([x509Bundle(own, [root], [rootCrl])]);
    assert.deepEqual([...choice.crls], [[own, [rootCrl]]]);
    assert.equal(choice.leftOut.size, 0);
    assert.equal(choice.until, testNow + hourMs - crlMarginMs);
    const late = choose([x509Bundle(own, [root], [rootCrl])], [], choice.until);
    assert.equal(late.crls.size, 0);
    assert.match(leftOut(late), /has no CRL but one that is about to be out of date/);
    assert.match(
      leftOut(choose([x509Bundle(own, [root], [rootCrl])], [], testNow + 2 * hourMs)),
      /out of date/,
    );
  });

  test('go only together, when every authority has one, also of those with the same name', () => {
    assert.deepEqual(choose([x509Bundle(own, [root, sibling], [rootCrl, siblingCrl])]).crls.get(own), [
      rootCrl,
      siblingCrl,
    ]);
    const partial = choose([x509Bundle(own, [root, sibling], [rootCrl])]);
    assert.equal(partial.crls.size, 0);
    assert.match(leftOut(partial), new RegExp(`serial ${sibling.certificate.serial}\\) has no CRL$`));
  });

  test('must name their keys where two authorities have one name, because Envoy would take either', async () => {
    const crls = [rootCrl, await sibling.crl([], { keyIdentifier: false })];
    const choice = choose([x509Bundle(own, [root, sibling], crls)]);
    assert.equal(choice.crls.size, 0);
    assert.match(leftOut(choice), /without a key identifier/);
    assert.equal(choose([x509Bundle(own, [sibling], crls)]).crls.get(own)?.length, 1);
  });

  test('of another domain are a matter of their own', async () => {
    const partnerCrl = await partnerRoot.crl([]);
    const choice = choose([
      x509Bundle(own, [root, sibling], [rootCrl]),
      x509Bundle(partner, [partnerRoot], [partnerCrl]),
    ]);
    assert.deepEqual([...choice.crls.keys()], [partner]);
    assert.deepEqual([...choice.leftOut.keys()], [own]);
  });

  test('must cover the known intermediates of its own, and no others', async () => {
    const intermediate = await root.intermediate();
    const known = [intermediate.certificate, (await partnerRoot.intermediate()).certificate];
    const missing = choose([x509Bundle(own, [root], [rootCrl])], known);
    assert.match(leftOut(missing), /CN=intermediate .* has no CRL$/);
    const crls = [rootCrl, await intermediate.crl([])];
    assert.equal(choose([x509Bundle(own, [root], crls)], known).crls.get(own)?.length, 2);
  });

  test('are of no use below an authority whose own issuer is not held', async () => {
    const anchor = await root.intermediate();
    const choice = choose([x509Bundle(own, [anchor], [await anchor.crl([])])]);
    assert.match(leftOut(choice), /was issued by one that is not held/);
  });

  test('that are not valid yet are chosen when their time comes', async () => {
    const early = await root.crl([], { thisUpdate: testNow + 1000, nextUpdate: testNow + hourMs });
    const bundle = x509Bundle(own, [root], [early]);
    const choice = choose([bundle]);
    assert.match(leftOut(choice), /not valid yet/);
    assert.equal(choice.until, testNow + 1000);
    assert.equal(choose([bundle], [], choice.until).crls.size, 1);
  });

  test('are nothing to speak of where none came, or where nothing is trusted', () => {
    const choice = choose([x509Bundle(own, [root]), x509Bundle(partner, [], [rootCrl])]);
    assert.deepEqual([choice.crls.size, choice.leftOut.size, choice.until], [0, 0, Number.POSITIVE_INFINITY]);
  });
});
