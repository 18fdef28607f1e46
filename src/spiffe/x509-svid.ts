import { createPrivateKey, type KeyObject } from 'node:crypto';
import { MalformedError } from '../runtime/errors.ts';
import { type Certificate, parseCertificates } from './certificate.ts';
import { derTag, readSingleDer } from './der.ts';
import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts';
import { checkLeaf } from './x509-leaf.ts';

/** An X509-SVID with its private key (X509-SVID §2). */
export type X509Svid = Readonly<{
  spiffeId: SpiffeId;
  /** Leaf first, then the intermediates up to, not including, the authority. */
  chain: readonly [Certificate, ...Certificate[]];
  /** PKCS#8 DER, unencrypted. A Buffer, so that it never becomes a string by accident; never logged. */
  privateKey: Buffer;
  /** The Workload API's hint; empty when none was given. */
  hint: string;
}>;

/** The most certificates in one chain. */
export const maxChainLength = 16;
const maxKeyBytes = 16 * 1024;
const maxHintBytes = 1024;

/**
 * Builds an X509-SVID from what a source delivers. Nothing passes that a peer would refuse: the leaf follows every rule
 * of X509-SVID, its SPIFFE ID is `spiffeId`, it is within its time at `now` (milliseconds), the intermediates may sign,
 * and the key is the leaf's. Throws an AppError that never quotes the key.
 */
export function parseX509Svid(
  parts: { spiffeId: string; chainDer: Buffer; privateKeyDer: Buffer; hint: string },
  now: number,
): X509Svid {
  const spiffeId = parseSpiffeId(parts.spiffeId);
  if (Buffer.byteLength(parts.hint) > maxHintBytes) {
    throw new MalformedError(`hint of the X509-SVID is longer than ${maxHintBytes} bytes`);
  }
  const [leaf, ...intermediates] = parseCertificates(parts.chainDer, maxChainLength);
  if (leaf === undefined) throw new MalformedError('X509-SVID has no certificate');
  const svid: X509Svid = Object.freeze({
    spiffeId,
    chain: Object.freeze([leaf, ...intermediates] as const),
    privateKey: Buffer.from(parts.privateKeyDer),
    hint: parts.hint,
  });
  checkX509Svid(svid, now);
  return svid;
}

/** The checks of `parseX509Svid` on a value that somebody else has built. Throws MalformedError. */
export function checkX509Svid(svid: X509Svid, now: number): void {
  const [leaf, ...intermediates] = svid.chain;
  const checked = checkLeaf(leaf, now);
  if (typeof checked !== 'string') {
    throw new MalformedError(`X509-SVID ${svid.spiffeId} is refused: ${checked.message}`);
  }
  if (checked !== svid.spiffeId) {
    throw new MalformedError(`X509-SVID ${svid.spiffeId} has a certificate for ${checked}`);
  }
  for (const { isCa, keyUsage } of intermediates) {
    if (!isCa || keyUsage?.has('keyCertSign') !== true) {
      throw new MalformedError(
        `X509-SVID ${svid.spiffeId} has an intermediate that may not sign certificates`,
      );
    }
  }
  if (!leaf.native.checkPrivateKey(parsePrivateKey(svid.privateKey))) {
    throw new MalformedError(`private key of X509-SVID ${svid.spiffeId} does not match its certificate`);
  }
}

function parsePrivateKey(der: Buffer): KeyObject {
  if (der.length > maxKeyBytes) throw new MalformedError(`private key is longer than ${maxKeyBytes} bytes`);
  try {
    readSingleDer(der, derTag.sequence);
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } catch {
    // No cause: what OpenSSL says of a key is not for logs.
    throw new MalformedError('private key is not unencrypted PKCS#8 in DER');
  }
}
