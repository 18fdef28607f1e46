import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sameSvids } from '../../../src/trust/same-material.ts';
import { createTestAuthority } from '../../support/ca.ts';

const root = await createTestAuthority('example.org');
const svid = await root.svid('spiffe://example.org/web');

test('other bytes of a key are other material, even under the same certificate', () => {
  const reencoded = { ...svid, privateKey: Buffer.concat([svid.privateKey, Buffer.of(0)]) };
  assert.equal(sameSvids([svid], [{ ...svid, privateKey: Buffer.from(svid.privateKey) }]), true);
  assert.equal(sameSvids([svid], [reencoded]), false);
});

test('an intermediate more is other material', async () => {
  const { certificate } = await root.intermediate();
  assert.equal(sameSvids([svid], [{ ...svid, chain: [...svid.chain, certificate] }]), false);
});
