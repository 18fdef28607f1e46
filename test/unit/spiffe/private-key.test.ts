import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parsePrivateKeyPem } from '../../../src/spiffe/private-key.ts';

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';

function pkcs8(key: KeyObject): Buffer {
  return key.export({ type: 'pkcs8', format: 'der' });
}

function refusal(pem: string | Buffer): string {
  try {
    parsePrivateKeyPem(Buffer.from(pem));
  } catch (error) {
    assert.ok(error instanceof MalformedError);
    assert.equal(error.cause, undefined);
    return error.message;
  }
  throw new assert.AssertionError({ message: 'the key was taken' });
}

describe('a private key in PEM', () => {
  const forms: readonly (readonly [string, KeyObject, string])[] = [
    ['PKCS#8 with an EC key', ec, ec.export({ type: 'pkcs8', format: 'pem' }).toString()],
    ['PKCS#8 with an RSA key', rsa, rsa.export({ type: 'pkcs8', format: 'pem' }).toString()],
    ['the traditional EC form', ec, ec.export({ type: 'sec1', format: 'pem' }).toString()],
    [
      'the traditional EC form behind its parameters',
      ec,
      parameters + ec.export({ type: 'sec1', format: 'pem' }),
    ],
    ['the traditional RSA form', rsa, rsa.export({ type: 'pkcs1', format: 'pem' }).toString()],
  ];
  for (const [form, key, pem] of forms) {
    test(`in ${form} becomes the same key in PKCS#8`, () => {
      assert.deepEqual(parsePrivateKeyPem(Buffer.from(pem)), pkcs8(key));
    });
  }

  test('that is encrypted is refused, in both forms, with what to do', () => {
    const cipher = { cipher: 'aes-256-cbc', passphrase: 'secret' };
    for (const pem of [
      ec.export({ type: 'pkcs8', format: 'pem', ...cipher }),
      ec.export({ type: 'sec1', format: 'pem', ...cipher }),
    ]) {
      assert.match(refusal(pem), /is encrypted: write it without a passphrase/);
    }
  });

  test('is refused when there is none, more than one, half of one, or too much', () => {
    const pem = ec.export({ type: 'pkcs8', format: 'pem' }).toString();
    assert.match(refusal(''), /exactly one/);
    assert.match(refusal(pem + pem), /exactly one/);
    assert.match(refusal(pem.slice(0, 100)), /exactly one/);
    assert.match(refusal(pem.replace(/\n[A-Za-z0-9+/]{8}/, '\n')), /is broken/);
    assert.match(refusal('x'.repeat(40_000)), /longer than/);
  });

  test('as this program writes one reads back to the same bytes', () => {
    assert.deepEqual(parsePrivateKeyPem(encodePrivateKeyPem(pkcs8(ec))), pkcs8(ec));
  });

  test('of any content never throws anything but an AppError', () => {
    const pem = ec.export({ type: 'sec1', format: 'pem' }).toString();
    const cut = fc.nat(pem.length).map((at) => pem.slice(at));
    const spoilt = fc
      .tuple(fc.nat(pem.length - 1), fc.string({ minLength: 1, maxLength: 3 }))
      .map(([at, text]) => pem.slice(0, at) + text + pem.slice(at + 1));
    fc.assert(
      fc.property(fc.oneof(fc.string(), cut, spoilt), (text) => {
        try {
          assert.ok(parsePrivateKeyPem(Buffer.from(text)).length > 0);
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }),
    );
  });
});
