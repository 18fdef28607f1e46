import { constants } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type ServerOptions } from 'node:https';
import { bindTcp } from '../runtime/bind-tcp.ts';
import { createConnectionRoom } from '../runtime/connection-room.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { formatHostPort, type HostPort } from '../runtime/socket-address.ts';
import { type BundleDocument, formatBundleDocument } from '../spiffe/bundle-document.ts';
import type { CredentialSource } from '../spiffe/tls-credentials.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import type { FederationMeter } from './meter.ts';

export type BundleServerOptions = Readonly<{
  listen: HostPort;
  /** https_spiffe is TLS 1.3 only; https_web also speaks 1.2, as browsers' PKI clients may need. */
  profile: 'https_spiffe' | 'https_web';
  credentials: CredentialSource;
  /** The bundle that is published; undefined while there is none. */
  document: () => BundleDocument | undefined;
  log: Logger;
  meter: Pick<FederationMeter, 'served'>;
}>;

/** A bundle endpoint (SPIFFE Federation §4): `GET /` over https, for everybody, without client authentication. */
export interface BundleServer {
  /** Binds at once; rejects with UnavailableError that says why not. Port 0: the system picks one. */
  listen(): Promise<HostPort>;
  /** Follows the credentials until `signal` fires. */
  run(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

const requestTimeoutMs = 10_000;
const idleTimeoutMs = 5_000;
const maxConnections = 256;
const maxHeaderBytes = 8 * 1024;
const maxRequestsPerSocket = 100;

export function createBundleServer(options: BundleServerOptions): BundleServer {
  const { listen: address, profile, credentials, log, meter } = options;
  const tls: ServerOptions = {
    minVersion: profile === 'https_spiffe' ? 'TLSv1.3' : 'TLSv1.2',
    // A ticket would let clients go on with a certificate that has been replaced.
    secureOptions: constants.SSL_OP_NO_TICKET,
    handshakeTimeout: requestTimeoutMs,
  };
  const body = cachedBody(options.document);

  function handle(request: IncomingMessage, response: ServerResponse): void {
    const end = (status: 200 | 404 | 405 | 503, type: string, text: string, more = {}): void => {
      meter.served(status);
      response.writeHead(status, {
        'content-type': type,
        'content-length': Buffer.byteLength(text),
        'cache-control': 'no-cache',
        'x-content-type-options': 'nosniff',
        // Nothing here takes a body; one that comes is not read, so the connection cannot be used again.
        ...(hasBody(request) ? { connection: 'close' } : {}),
        ...more,
      });
      response.end(text);
    };
    const plain = 'text/plain; charset=utf-8';
    if ((request.url ?? '').split('?', 1)[0] !== '/') end(404, plain, 'the bundle is at /\n');
    else if (request.method !== 'GET' && request.method !== 'HEAD') {
      end(405, plain, 'only GET and HEAD\n', { allow: 'GET, HEAD' });
    } else {
      const text = body();
      if (text === undefined) end(503, plain, 'no bundle is held yet\n');
      else end(200, 'application/json', text);
    }
  }

  const server = createServer(
    {
      ...tls,
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: idleTimeoutMs,
      connectionsCheckingInterval: 1_000,
    },
    handle,
  );
  createConnectionRoom(server, maxConnections);
  server.maxRequestsPerSocket = maxRequestsPerSocket;
  server.on('tlsClientError', (error) =>
    log.debug({ error: messageOf(error) }, 'bundle endpoint handshake failed'),
  );

  return Object.freeze<BundleServer>({
    async listen() {
      const port = await bindTcp(server, address, {
        failure: `bundle endpoint cannot listen on ${formatHostPort(address)}`,
        taken: 'stop the other program or change federation.serve.listen',
      });
      const bound = { host: address.host, port };
      log.info({ address: formatHostPort(bound), profile }, 'bundle endpoint listens');
      return bound;
    },
    async run(signal) {
      for await (const { certificatePem, privateKeyPem } of credentials(signal)) {
        // For new connections; the socket stays bound and open connections go on.
        server.setSecureContext({ ...tls, cert: certificatePem, key: privateKeyPem });
        log.debug({}, 'bundle endpoint has a new certificate');
      }
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  });
}

/** What our own endpoint says of our own trust domain; undefined before there is an identity. */
export function ownBundle(
  { trustDomain, bundles, jwtBundles }: TrustSnapshot,
  refreshHintS: number,
): BundleDocument | undefined {
  const x509 = trustDomain === undefined ? undefined : bundles.get(trustDomain);
  if (trustDomain === undefined || x509 === undefined) return undefined;
  return {
    x509,
    jwt: jwtBundles.get(trustDomain) ?? { trustDomain, authorities: [] },
    refreshHintS,
    // Only the source's own: one of ours would not survive a restart, and would differ between sidecars.
    sequence: x509.sequence,
  };
}

/** Formats a document once, however often it is asked for. */
function cachedBody(document: () => BundleDocument | undefined): () => string | undefined {
  let last: BundleDocument | undefined;
  let text: string | undefined;
  return () => {
    const now = document();
    if (now?.x509 !== last?.x509 || now?.jwt !== last?.jwt) {
      text = now === undefined ? undefined : formatBundleDocument(now);
    }
    last = now;
    return text;
  };
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}
