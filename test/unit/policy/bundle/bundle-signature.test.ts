import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { verifyBundleSignature } from '../../../../src/policy/bundle/bundle-signature.ts';
import { AppError } from '../../../../src/runtime/errors.ts';

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const rego = { path: 'a.rego', bytes: Buffer.from('package a') };
const hash = createHash('sha256').update(rego.bytes).digest('hex');
const entry = { name: 'a.rego', hash, algorithm: 'SHA-256' };

function encoded(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function token(payload: unknown, header: unknown = { alg: 'ES256' }): string {
  const text = `${encoded(header)}.${encoded(payload)}`;
  const signature = sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${text}.${signature.toString('base64url')}`;
}

function judge(document: unknown): void {
  const bytes = Buffer.from(typeof document === 'string' ? document : JSON.stringify(document));
  verifyBundleSignature([rego, { path: '.signatures.json', bytes }], publicKey);
}

test('each defect of a signature is named', () => {
  const good = token({ files: [entry] });
  judge({ signatures: [good] });
  const table: readonly (readonly [unknown, RegExp])[] = [
    ['[', /is not JSON/],
    ['null', /is not a JSON object/],
    [{}, /exactly one signature/],
    [{ signatures: [good, good] }, /exactly one signature/],
    [{ signatures: [`${good}.x`] }, /not by verification_key/],
    [{ signatures: [token({ files: [entry] }, { alg: 'none' })] }, /not by verification_key/],
    [{ signatures: [token({ files: [entry] }, { alg: 'HS256' })] }, /not by verification_key/],
    [{ signatures: [token({ files: [entry] }, { alg: 'ES384' })] }, /not by verification_key/],
    [{ signatures: [token({ files: [entry], scope: 'write' })] }, /has a scope/],
    [{ signatures: [token({ files: 'all' })] }, /no list of files/],
    [{ signatures: [token({ files: [{ ...entry, algorithm: 'CRC' }] })] }, /hash "CRC" .* is unknown/],
  ];
  for (const [document, why] of table) assert.throws(() => judge(document), why);
});

test('no signature file makes it throw anything but AppError', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json(),
        fc.string(),
        fc.array(fc.string()).map((signatures) => ({ signatures })),
      ),
      (text) => {
        assert.throws(() => judge(text), AppError);
      },
    ),
  );
});
