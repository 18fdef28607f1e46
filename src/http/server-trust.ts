import { Agent as HttpsAgent } from 'node:https';
import { isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, connect, getCACertificates, type TLSSocket } from 'node:tls';
import { AppError } from '../runtime/errors.ts';
import type { X509BundleSet } from '../spiffe/bundle.ts';
import { type Certificate, parseCertificate } from '../spiffe/certificate.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../spiffe/verify.ts';
import { maxChainLength } from '../spiffe/x509-svid.ts';

/** How an https server proves who it is. */
export type ServerTrust =
  /** Web PKI (RFC 6125): the host name, under the CAs given as PEM or, without any, those of the system. */
  | Readonly<{ kind: 'web'; caPem?: string | undefined }>
  /** An X509-SVID with exactly this ID, verified against the bundle of the ID's own trust domain. */
  | Readonly<{
      kind: 'spiffe';
      spiffeId: SpiffeId;
      bundles: () => X509BundleSet;
      /** Milliseconds since the epoch. */
      now: () => number;
    }>;

/** The server is not who it has to be; nothing was sent to it. */
export class ServerIdentityError extends AppError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('permission_denied', message, options);
  }
}

export type VerifyingAgent = Readonly<{
  agent: HttpsAgent;
  /** The last server that did not prove its identity; node-fetch keeps only the text of an agent's error. */
  refusal(): ServerIdentityError | undefined;
}>;

/**
 * An agent for `https:` whose connections exist only once the server has proved its identity; each is used for one
 * request, so the proof is always of now. It uses no proxy. Nothing here bounds time: `destroy` also ends connections that
 * are still shaking hands.
 */
export function createVerifyingAgent(trust: ServerTrust): VerifyingAgent {
  const sockets = new Set<TLSSocket>();
  let refusal: ServerIdentityError | undefined;

  class Verifying extends HttpsAgent {
    override createConnection(
      options: ConnectionOptions,
      callback: (error: Error | null, stream: Duplex) => void,
    ): undefined {
      const socket = connect({
        ...options,
        // A resumed session would come without the server's certificate.
        session: undefined,
        ...tlsOptions(trust, options.host ?? ''),
      });
      sockets.add(socket);
      const fail = (error: Error): void => {
        socket.destroy();
        const told = toIdentityError(error);
        if (told instanceof ServerIdentityError) refusal = told;
        // Node's own agents call back with an error alone.
        callback(told, undefined as unknown as Socket);
      };
      socket.once('close', () => sockets.delete(socket));
      socket.once('error', fail);
      socket.once('secureConnect', () => {
        socket.removeListener('error', fail);
        const fault = faultOf(trust, socket);
        if (fault === undefined) callback(null, socket);
        else fail(fault);
      });
    }

    override destroy(): void {
      super.destroy();
      for (const socket of sockets) socket.destroy();
    }
  }

  return Object.freeze({ agent: new Verifying({ keepAlive: false }), refusal: () => refusal });
}

function tlsOptions(trust: ServerTrust, host: string): ConnectionOptions {
  const servername = isIP(host) === 0 ? { servername: host } : { servername: '' };
  if (trust.kind === 'web') {
    return { ...servername, ca: trust.caPem ?? systemCas(), minVersion: 'TLSv1.2', rejectUnauthorized: true };
  }
  // OpenSSL's path validation knows nothing of trust domains: ours runs when the handshake has proved the key.
  return { ...servername, minVersion: 'TLSv1.3', rejectUnauthorized: false };
}

/** Images without a certificate store fall back to what Node brings along. */
function systemCas(): string[] {
  const cas = [...getCACertificates('system'), ...getCACertificates('extra')];
  return cas.length > 0 ? cas : [...getCACertificates('default')];
}

function faultOf(trust: ServerTrust, socket: TLSSocket): ServerIdentityError | undefined {
  // Node has verified chain and host name already.
  if (trust.kind === 'web') return undefined;
  let chain: readonly Certificate[];
  try {
    chain = peerChain(socket);
  } catch (cause) {
    return new ServerIdentityError('the server shows a malformed certificate', { cause });
  }
  const verified = verifyX509Svid(chain, trust.bundles(), trust.now());
  if (!verified.valid) {
    return new ServerIdentityError(
      `the server's X509-SVID is refused (${verified.reason}): ${verified.message}`,
    );
  }
  return verified.spiffeId === trust.spiffeId
    ? undefined
    : new ServerIdentityError(`the server is ${verified.spiffeId}, expected ${trust.spiffeId}`);
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

/** OpenSSL's and Node's codes for a certificate that is not trusted or is for another name. */
const certificateCodes =
  /^(?:ERR_TLS_CERT_ALTNAME_INVALID|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_(?:CA|PURPOSE)|PATH_LENGTH|HOSTNAME_MISMATCH|CRL_)/;

function toIdentityError(error: Error): Error {
  if (error instanceof AppError || !('code' in error)) return error;
  if (!certificateCodes.test(String(error.code))) return error;
  return new ServerIdentityError(`the server's certificate is refused: ${error.message}`, { cause: error });
}
