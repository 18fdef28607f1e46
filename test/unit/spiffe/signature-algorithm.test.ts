import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStronglySigned } from '../../../src/spiffe/signature-algorithm.ts';

/** The outline of a certificate with this AlgorithmIdentifier, in hex. */
function signedWith(algorithm: string): Buffer {
  const content = Buffer.concat([
    Buffer.from('3000', 'hex'),
    Buffer.from(algorithm, 'hex'),
    Buffer.of(3, 1, 0),
  ]);
  return Buffer.concat([Buffer.of(0x30, content.length), content]);
}

for (const [what, algorithm] of [
  ['RSA with SHA-256', '300d06092a864886f70d01010b0500'],
  ['RSA with SHA-384', '300d06092a864886f70d01010c0500'],
  ['RSA with SHA-512', '300d06092a864886f70d01010d0500'],
  ['ECDSA with SHA-256', '300a06082a8648ce3d040302'],
  ['ECDSA with SHA-384', '300a06082a8648ce3d040303'],
  ['ECDSA with SHA-512', '300a06082a8648ce3d040304'],
  ['Ed25519', '300506032b6570'],
  ['Ed448', '300506032b6571'],
  ['RSASSA-PSS with SHA-256', '301e06092a864886f70d01010a3011a00f300d06096086480165030402010500'],
] as const) {
  test(`a signature by ${what} is strong`, () => assert.equal(isStronglySigned(signedWith(algorithm)), true));
}

for (const [what, algorithm] of [
  ['RSA with MD5', '300d06092a864886f70d0101040500'],
  ['RSA with SHA-1', '300d06092a864886f70d0101050500'],
  ['RSA with SHA-1 under its OIW name', '300906052b0e03021d0500'],
  ['RSA with RIPEMD-160', '300a06062b24030301020500'],
  ['ECDSA with SHA-1', '300906072a8648ce3d0401'],
  ['DSA with SHA-1', '300906072a8648ce380403'],
  ['RSASSA-PSS with SHA-1', '301a06092a864886f70d01010a300da00b300906052b0e03021a0500'],
  ['RSASSA-PSS that leaves out its hash', '300d06092a864886f70d01010a3000'],
] as const) {
  test(`a signature by ${what} is not strong`, () =>
    assert.equal(isStronglySigned(signedWith(algorithm)), false));
}
