import { Agent as HttpsAgent } from 'node:https';
import { isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  type ConnectionOptions,
  connect,
  createSecureContext,
  getCACertificates,
  type SecureContext,
  type TLSSocket,
} from 'node:tls';
import { AppError } from '../runtime/errors.ts';
import type { TlsCredentials } from '../spiffe/tls-credentials.ts';
import { proveServer, ServerIdentityError, type ServerTrust } from './server-trust.ts';

/**
 * An agent for `https:` whose connections exist only once the server has proved its identity, and are kept for `idleMs`
 * milliseconds at most, never beyond the end of what was proved. The server is shown `credentials`. It uses no proxy and has
 * no queue. Nothing here bounds time: `destroy` also ends connections that are still shaking hands. Throws when OpenSSL
 * cannot read what it is given.
 */
export function createVerifyingAgent(
  trust: ServerTrust,
  idleMs: number,
  credentials?: TlsCredentials,
): HttpsAgent {
  const secureContext = secureContextOf(trust, credentials);
  const sockets = new Set<TLSSocket>();
  /** When what a connection's server has proved comes to an end. */
  const ends = new WeakMap<Duplex, number>();

  function prove(socket: TLSSocket): void {
    // By the Web PKI Node has verified chain and host name already.
    if (trust.kind === 'spiffe') ends.set(socket, proveServer(trust, socket));
  }

  class Verifying extends HttpsAgent {
    override createConnection(
      options: ConnectionOptions,
      callback: (error: Error | null, stream: Duplex) => void,
    ): undefined {
      const host = options.host ?? '';
      const socket = connect({
        ...options,
        // A resumed session would come without the server's certificate.
        session: undefined,
        secureContext,
        servername: isIP(host) === 0 ? host : '',
        // OpenSSL's path validation knows nothing of trust domains: ours runs when the handshake has proved the key.
        rejectUnauthorized: trust.kind === 'web',
      });
      sockets.add(socket);
      const fail = (error: unknown): void => {
        socket.destroy();
        // Node's own agents call back with an error alone.
        callback(toIdentityError(error), undefined as unknown as Socket);
      };
      socket.once('close', () => sockets.delete(socket));
      socket.once('error', fail);
      socket.once('secureConnect', () => {
        socket.removeListener('error', fail);
        try {
          prove(socket);
        } catch (error) {
          fail(error);
          return;
        }
        callback(null, socket);
      });
    }

    override keepSocketAlive(socket: Duplex): boolean {
      const end = ends.get(socket);
      if (trust.kind === 'spiffe' && (end === undefined || trust.now() + idleMs >= end)) return false;
      // Its declaration says void, its documentation that it tells whether the socket is kept.
      return super.keepSocketAlive(socket) as unknown as boolean;
    }

    override destroy(): void {
      super.destroy();
      for (const socket of sockets) socket.destroy();
    }
  }

  return new Verifying({ keepAlive: true, timeout: idleMs });
}

function secureContextOf(trust: ServerTrust, credentials: TlsCredentials | undefined): SecureContext {
  if (trust.kind === 'web') {
    return createSecureContext({ ca: trust.caPem ?? systemCas(), minVersion: 'TLSv1.2' });
  }
  const shown = credentials && { cert: credentials.certificatePem, key: credentials.privateKeyPem };
  return createSecureContext({ ...shown, minVersion: 'TLSv1.3' });
}

/** Images without a certificate store fall back to what Node brings along. */
function systemCas(): string[] {
  const cas = [...getCACertificates('system'), ...getCACertificates('extra')];
  return cas.length > 0 ? cas : [...getCACertificates('default')];
}

/** OpenSSL's and Node's codes for a certificate that is not trusted or is for another name. */
const certificateCodes =
  /^(?:ERR_TLS_CERT_ALTNAME_INVALID|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_(?:CA|PURPOSE)|PATH_LENGTH|HOSTNAME_MISMATCH|CRL_)/;

function toIdentityError(thrown: unknown): Error {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  if (error instanceof AppError || !('code' in error)) return error;
  if (!certificateCodes.test(String(error.code))) return error;
  return new ServerIdentityError(`the server's certificate is refused: ${error.message}`, { cause: error });
}
