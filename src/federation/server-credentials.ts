import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, AppError, MalformedError, messageOf, UnavailableError } from '../runtime/errors.ts';
import { contentOf, createFileSet, type FileEvent, type FileSet } from '../runtime/file-watch.ts';
import type { Logger } from '../runtime/log.ts';
import type { CredentialSource, TlsCredentials } from '../spiffe/tls-credentials.ts';

export type CredentialFiles = Readonly<{ certificate: string; privateKey: string }>;

const pollMs = 1_000;
/** A chain that is cut short after the leaf still fits its key. */
const quietLooks = 1;
const maxFileBytes = 256 * 1024;

/**
 * A certificate and its key from files that are looked at every second; a pair that does not belong together or cannot
 * be read is passed over and logged, so the last good one stays.
 */
export function fileCredentials(
  files: CredentialFiles,
  { sleep, log }: Readonly<{ sleep: Sleep; log: Logger }>,
): CredentialSource {
  return async function* credentials(signal) {
    const set = fileSetOf(files, quietLooks);
    // A partner whose first handshake fails asks again only after its whole interval, so the first pair is not waited
    // for; if it was cut short, the next one that is quiet mends it.
    const first = await readCredentials(files).catch(() => undefined);
    if (first !== undefined) yield first;
    while (!signal.aborted) {
      const events = await set.look();
      try {
        if (events !== undefined) yield pairOf(files, events);
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'new certificate of the bundle endpoint refused');
      }
      try {
        await sleep(pollMs, signal);
      } catch (error) {
        if (error instanceof AbortedError) return;
        throw error;
      }
    }
  };
}

/** Reads the pair once. Throws an AppError, which never quotes the key, when it cannot be used. */
export async function readCredentials(files: CredentialFiles): Promise<TlsCredentials> {
  const events = await fileSetOf(files).look();
  if (events === undefined) throw new UnavailableError(`${files.certificate} changes while it is read`);
  return pairOf(files, events);
}

function fileSetOf({ certificate, privateKey }: CredentialFiles, quietLooks = 0): FileSet {
  return createFileSet({ paths: [certificate, privateKey], maxBytes: maxFileBytes, quietLooks });
}

function pairOf(files: CredentialFiles, events: readonly FileEvent[]): TlsCredentials {
  const certificatePem = contentOf(files.certificate, events[0]);
  const privateKeyPem = contentOf(files.privateKey, events[1]);
  let fits: boolean;
  try {
    fits = new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(privateKeyPem));
  } catch {
    // No cause: what OpenSSL says of a key is not for logs.
    throw new MalformedError(
      `${files.certificate} and ${files.privateKey} are not a certificate and an unencrypted private key in PEM`,
    );
  }
  if (!fits) {
    throw new AppError('conflict', `the key in ${files.privateKey} is not that of ${files.certificate}`);
  }
  return Object.freeze({ certificatePem, privateKeyPem });
}
