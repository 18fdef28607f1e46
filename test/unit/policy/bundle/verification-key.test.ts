import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import {
  parseVerificationKey,
  VerificationKeyError,
} from '../../../../src/policy/bundle/verification-key.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const pemOf = (key: KeyObject, type: 'spki' | 'pkcs8'): Buffer =>
  Buffer.from(key.export({ type, format: 'pem' }));
const parse = (bytes: Buffer): KeyObject =>
  parseVerificationKey('pub.pem', { kind: 'content', bytes, mode: 0o600 });

test('public keys of RSA and EC are taken, and each other file is refused with what it is', () => {
  for (const { publicKey } of [rsa, ec]) assert.ok(parse(pemOf(publicKey, 'spki')).equals(publicKey));
  const table: readonly (readonly [Buffer, RegExp])[] = [
    [pemOf(rsa.privateKey, 'pkcs8'), /^verification key pub\.pem is a private key: only the public one/],
    [Buffer.from(ec.privateKey.export({ type: 'sec1', format: 'pem' })), /is a private key/],
    [pemOf(generateKeyPairSync('ed25519').publicKey, 'spki'), /is neither an RSA nor an EC key/],
    [pemOf(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey, 'spki'), /less than 2048 bits/],
    [Buffer.from('secret'), /is no public key in PEM/],
    [Buffer.alloc(0), /is no public key in PEM/],
  ];
  for (const [bytes, why] of table) {
    assert.throws(
      () => parse(bytes),
      (error) => error instanceof VerificationKeyError && why.test(error.message),
      String(why),
    );
  }
});
