import type { RequestListener } from 'node:http';
import { createServer, type Server, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import {
  type Certificate,
  encodeCertificatesPem,
  encodePrivateKeyPem,
} from '../../src/spiffe/certificate.ts';

export type HttpsServer = Readonly<{
  server: Server;
  /** `https://127.0.0.1:PORT`. */
  url: string;
  /** How many requests came through the handshake. */
  requests: () => number;
}>;

/** What a server shows of itself: a chain, leaf first, and the key of the leaf as PKCS#8 in DER. */
export type ShownIdentity = Readonly<{ chain: readonly Certificate[]; privateKey: Buffer }>;

/** An https server on a loopback port, closed after the test. */
export async function startHttpsServer(
  t: TestContext,
  shown: ShownIdentity,
  handle: RequestListener,
  options: ServerOptions = {},
): Promise<HttpsServer> {
  let requests = 0;
  const server = createServer({ ...options, ...pemOf(shown) }, (request, response) => {
    requests += 1;
    handle(request, response);
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  return { server, url: `https://127.0.0.1:${port}`, requests: () => requests };
}

export function pemOf({ chain, privateKey }: ShownIdentity): { cert: Buffer; key: Buffer } {
  return { cert: encodeCertificatesPem(chain), key: encodePrivateKeyPem(privateKey) };
}
