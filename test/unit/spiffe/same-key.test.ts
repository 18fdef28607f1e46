import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { isSameKey } from '../../../src/spiffe/same-key.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ec384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });

test('a key is the same as itself and as no other', () => {
  assert.equal(isSameKey(rsa.publicKey, rsa.publicKey), true);
  assert.equal(isSameKey(ec.publicKey, ec384.publicKey), false);
  assert.equal(isSameKey(rsa.publicKey, ec.publicKey), false);
});

test('a private key can be read after keys of two kinds were compared', () => {
  const der = ec.privateKey.export({ type: 'pkcs8', format: 'der' });
  isSameKey(rsa.publicKey, ec.publicKey);
  assert.equal(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).asymmetricKeyType, 'ec');
});
