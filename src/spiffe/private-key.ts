import { createPrivateKey, type KeyObject } from 'node:crypto';
import { MalformedError } from '../runtime/errors.ts';

/** The longest private key that is looked at, in bytes of its DER. */
const maxKeyBytes = 16 * 1024;

/**
 * The one private key in a PEM file, as PKCS#8 in DER: `PRIVATE KEY`, or the traditional `EC PRIVATE KEY` and
 * `RSA PRIVATE KEY`, not encrypted. Throws MalformedError, which never quotes the key.
 */
export function parsePrivateKeyPem(pem: Buffer): Buffer {
  if (pem.length > 2 * maxKeyBytes) {
    throw new MalformedError(`file with the private key is longer than ${2 * maxKeyBytes} bytes`);
  }
  if (pem.includes('ENCRYPTED')) {
    throw new MalformedError('private key is encrypted: write it without a passphrase');
  }
  // One line where it begins, one where it ends.
  if (occurrences(pem, 'PRIVATE KEY-----') !== 2) {
    throw new MalformedError('file does not have exactly one private key in PEM');
  }
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: pem, format: 'pem' });
  } catch {
    // No cause: what OpenSSL says of a key is not for logs.
    throw new MalformedError('private key is broken, or of a kind other than PKCS#8, EC and RSA in PEM');
  }
  return key.export({ type: 'pkcs8', format: 'der' });
}

function occurrences(bytes: Buffer, text: string): number {
  let count = 0;
  for (let at = bytes.indexOf(text); at !== -1; at = bytes.indexOf(text, at + text.length)) count += 1;
  return count;
}
