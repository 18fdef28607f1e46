import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { X509BundleSet } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/spiffe-id.ts';
import type { CredentialSource } from '../spiffe/tls-credentials.ts';
import { verifyX509Svid } from '../spiffe/verify.ts';
import { peerChain } from './server-trust.ts';

export type MtlsDoorOptions = Readonly<{
  credentials: CredentialSource;
  /** Who may come in. */
  clientIds: readonly SpiffeId[];
  /** What clients are verified against: only IDs of our own trust domain come in. */
  trust: () => Readonly<{ trustDomain: TrustDomain | undefined; bundles: X509BundleSet }>;
  /** Milliseconds since the epoch. */
  now: () => number;
  log: Logger;
}>;

export interface MtlsDoor {
  /** Where the connections of clients who may come in go. */
  open(to: (secure: TLSSocket) => void): void;
  /**
   * Shakes hands over an accepted connection; that of a client who may not come in is closed. Of more than 128 handshakes
   * at once the oldest gives way.
   */
  admit(socket: Socket): void;
  /** Closes the connections of clients who would not be let in any more; one that only expired stays. */
  recheck(): void;
  /** Follows the credentials until `signal` fires; without any, every handshake fails. */
  run(signal: AbortSignal): Promise<void>;
}

const handshakeTimeoutMs = 10_000;
/** Far below the connections that a listener takes, so that strangers who only connect leave room for clients. */
const maxHandshakes = 128;

type Client = Readonly<{ chain: readonly Certificate[]; admittedAt: number }>;

/** TLS 1.3 with our own X.509-SVID in front of an HTTP/2 server, for clients with one of the SPIFFE IDs given. */
export function createMtlsDoor(options: MtlsDoorOptions): MtlsDoor {
  const { credentials, trust, now, log } = options;
  const clientIds: ReadonlySet<string> = new Set(options.clientIds);
  const clients = new Map<TLSSocket, Client>();
  const shaking = new Map<string, Socket>();
  const tls: TlsOptions = {
    minVersion: 'TLSv1.3',
    requestCert: true,
    // OpenSSL's path validation knows nothing of trust domains: ours runs when the handshake has proved the key.
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    // A resumed session would come without the client's certificate.
    secureOptions: constants.SSL_OP_NO_TICKET,
    handshakeTimeout: handshakeTimeoutMs,
  };
  let refusedBefore = false;
  let accept: ((secure: TLSSocket) => void) | undefined;

  function faultOf({ chain, admittedAt }: Client): string | undefined {
    if (chain.length === 0) return 'it shows no certificate';
    const { trustDomain, bundles } = trust();
    const verified = verifyX509Svid(chain, bundles, admittedAt);
    if (!verified.valid) return `its X509-SVID is refused (${verified.reason}): ${verified.message}`;
    const { spiffeId } = verified;
    if (verified.trustDomain !== trustDomain || !clientIds.has(spiffeId)) {
      return `${spiffeId} is not in ext_authz.tls.client_spiffe_ids`;
    }
    return undefined;
  }

  function judge(socket: TLSSocket): string | undefined {
    try {
      const client = { chain: peerChain(socket), admittedAt: now() };
      const fault = faultOf(client);
      if (fault === undefined) clients.set(socket, client);
      return fault;
    } catch (error) {
      return `its certificate is malformed: ${messageOf(error)}`;
    }
  }

  function refuse(error: string): void {
    if (refusedBefore) log.debug({ error }, 'TLS client refused');
    else log.warn({ error }, 'TLS client refused; further ones are logged at level debug');
    refusedBefore = true;
  }

  const server = createServer(tls, (socket) => {
    shaking.delete(endOf(socket));
    socket.on('error', () => {});
    socket.once('close', () => clients.delete(socket));
    const fault = socket.alpnProtocol === 'h2' ? judge(socket) : 'it does not speak HTTP/2';
    if (fault === undefined) accept?.(socket);
    else {
      refuse(fault);
      socket.destroy();
    }
  });
  server.on('tlsClientError', (error) => refuse(`handshake failed: ${messageOf(error)}`));

  return Object.freeze<MtlsDoor>({
    open(to) {
      accept = to;
    },
    admit(socket) {
      const end = endOf(socket);
      shaking.set(end, socket);
      socket.once('close', () => {
        if (shaking.get(end) === socket) shaking.delete(end);
      });
      server.emit('connection', socket);
      const [oldest] = shaking.values();
      if (shaking.size > maxHandshakes) oldest?.destroy();
    },
    recheck() {
      for (const [socket, client] of clients) {
        const fault = faultOf(client);
        if (fault === undefined) continue;
        refuse(fault);
        socket.destroy();
      }
    },
    async run(signal) {
      for await (const { certificatePem, privateKeyPem } of credentials(signal)) {
        // For new connections; those that are open go on.
        server.setSecureContext({ ...tls, cert: certificatePem, key: privateKeyPem });
      }
    },
  });
}

/** The client's end of a connection, which the secure socket and the one below have in common. */
function endOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
