import { createPublicKey, type KeyObject } from 'node:crypto';
import { AppError } from '../../runtime/errors.ts';
import { createFileSet, type FileEvent } from '../../runtime/file-watch.ts';

/** The key is at fault, not the bundle that it is to judge. */
export class VerificationKeyError extends AppError {}

const minRsaBits = 2048;
export const maxKeyBytes = 64 * 1024;

/** The public key in a PEM file, for the signatures of bundles. Throws VerificationKeyError. */
export function parseVerificationKey(path: string, event: FileEvent | undefined): KeyObject {
  if (event?.kind !== 'content') {
    const message = event?.kind === 'unreadable' ? event.message : `${path} does not exist`;
    throw new VerificationKeyError('unavailable', message);
  }
  // Node would take the public part of a private key, which has no business here: who reads it can sign.
  if (event.bytes.includes('PRIVATE KEY-----'))
    throw new VerificationKeyError(
      'malformed',
      `verification key ${path} is a private key: only the public one is needed here`,
    );
  let key: KeyObject;
  try {
    key = createPublicKey(event.bytes);
  } catch (error) {
    const message = `verification key ${path} is no public key in PEM`;
    throw new VerificationKeyError('malformed', message, { cause: error });
  }
  if (key.asymmetricKeyType !== 'rsa' && key.asymmetricKeyType !== 'ec')
    throw new VerificationKeyError('malformed', `verification key ${path} is neither an RSA nor an EC key`);
  if (key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < minRsaBits) {
    const message = `verification key ${path} is an RSA key of less than ${minRsaBits} bits`;
    throw new VerificationKeyError('malformed', message);
  }
  return key;
}

/** The same, read once. */
export async function readVerificationKey(path: string): Promise<KeyObject> {
  const [event] = (await createFileSet({ paths: [path], maxBytes: maxKeyBytes }).look()) ?? [];
  return parseVerificationKey(path, event);
}
