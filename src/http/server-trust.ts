import type { TLSSocket } from 'node:tls';
import { AppError } from '../runtime/errors.ts';
import type { X509BundleSet } from '../spiffe/bundle.ts';
import { type Certificate, parseCertificate } from '../spiffe/certificate.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TlsCredentials } from '../spiffe/tls-credentials.ts';
import { verifyX509Svid } from '../spiffe/verify.ts';
import { maxChainLength } from '../spiffe/x509-svid.ts';

/** How an https server proves who it is, and what we show to it. */
export type ServerTrust =
  /** Web PKI (RFC 6125): the host name, under the CAs given as PEM or, without any, those of the system. */
  Readonly<{ kind: 'web'; caPem?: string | undefined }> | SpiffeTrust;

/** An X509-SVID with one of these IDs, verified against the bundle of the ID's own trust domain. */
export type SpiffeTrust = Readonly<{
  kind: 'spiffe';
  spiffeIds: readonly SpiffeId[];
  /** The set of now: the same object as long as nothing in it has changed. */
  bundles: () => X509BundleSet;
  /** Our own X509-SVID of now, for servers that want one: the same object as long as it is the same; undefined: none yet. */
  credentials?: (() => TlsCredentials | undefined) | undefined;
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

/** The server is not who it has to be; nothing was sent to it. */
export class ServerIdentityError extends AppError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('permission_denied', message, options);
  }
}

/**
 * What the server of a new connection has to prove, OpenSSL having seen only that it holds its key. Returns until when
 * that holds, in milliseconds; throws ServerIdentityError.
 */
export function proveServer(trust: SpiffeTrust, socket: TLSSocket): number {
  let chain: readonly Certificate[];
  try {
    chain = peerChain(socket);
  } catch (cause) {
    throw new ServerIdentityError('the server shows a malformed certificate', { cause });
  }
  const verified = verifyX509Svid(chain, trust.bundles(), trust.now());
  if (!verified.valid) {
    throw new ServerIdentityError(
      `the server's X509-SVID is refused (${verified.reason}): ${verified.message}`,
    );
  }
  if (!trust.spiffeIds.includes(verified.spiffeId)) {
    throw new ServerIdentityError(
      `the server is ${verified.spiffeId}, expected ${trust.spiffeIds.join(' or ')}`,
    );
  }
  return verified.expiresAt;
}

/** What the other end has shown, leaf first; empty when it has shown nothing. Throws AppError. */
export function peerChain(socket: TLSSocket): readonly Certificate[] {
  const chain: Certificate[] = [];
  let shown = socket.getPeerCertificate(true);
  // Node links a self-signed certificate to itself.
  while (shown?.raw !== undefined && chain.length < maxChainLength) {
    const certificate = parseCertificate(shown.raw);
    if (chain.some(({ fingerprint }) => fingerprint === certificate.fingerprint)) break;
    chain.push(certificate);
    shown = shown.issuerCertificate;
  }
  return chain;
}
