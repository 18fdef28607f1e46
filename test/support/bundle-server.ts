import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';

/** A request as the service saw it. */
export type SeenRequest = Readonly<{
  prefer: string | undefined;
  ifNoneMatch: string | undefined;
  authorization: string | undefined;
  /** URI SANs of the certificate that the client showed. */
  client: string | undefined;
  status: number;
}>;

/** Answers in place of the service; false: the service answers after all. */
export type Override = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A service that speaks OPA's bundle API for one bundle. */
export interface BundleServer {
  /** Of the service, without the bundle's path. */
  readonly origin: string;
  /** Path of the bundle, with its slash. */
  readonly path: string;
  readonly url: string;
  /** Requests that were answered or are held back (status 0). */
  requests(): readonly SeenRequest[];
  /** Puts a version in place and answers whoever waits for it. Without `etag` the bundle has none. */
  publish(bundle: Buffer, etag?: string): void;
  /** The same for whoever has the version before and takes deltas: they get `delta`. */
  publishDelta(delta: Buffer, bundle: Buffer, etag: string): void;
  override(answer: Override | undefined): void;
  /** The only token that is let in from now on; undefined: everybody is. */
  requireToken(token: string | undefined): void;
  /** Ends it and every connection. */
  close(): Promise<void>;
}

export type BundleServerOptions = Readonly<{
  /** Holds answers back as long as it may, and says so by the type of its answers. */
  longPoll?: boolean;
  /** Serves over TLS, only to clients that show a certificate of `ca`. */
  tls?: Readonly<{ certificatePem: string; privateKeyPem: string; ca: string }>;
  port?: number;
}>;

type Version = Readonly<{
  bundle: Buffer;
  etag: string | undefined;
  delta?: Readonly<{ from: string | undefined; bundle: Buffer }>;
}>;

/** Starts a bundle service on loopback; it is closed after the test. */
export async function startBundleServer(
  t: TestContext,
  { longPoll = false, tls, port = 0 }: BundleServerOptions = {},
): Promise<BundleServer> {
  const path = '/bundles/authz.tar.gz';
  const seen: { -readonly [K in keyof SeenRequest]: SeenRequest[K] }[] = [];
  const waiting = new Set<() => void>();
  let current: Version | undefined;
  let override: Override | undefined;
  let token: string | undefined;

  function handle(request: IncomingMessage, response: ServerResponse): void {
    const { prefer, 'if-none-match': ifNoneMatch, authorization } = request.headers;
    const client = clientOf(request);
    const record = { prefer: prefer?.toString(), ifNoneMatch, authorization, client, status: 0 };
    seen.push(record);
    response.once('finish', () => (record.status = response.statusCode));
    if (override?.(request, response)) return;
    if (token !== undefined && authorization !== `Bearer ${token}`) {
      response.writeHead(401).end();
    } else if (request.url !== path || request.method !== 'GET' || current === undefined) {
      response.writeHead(404).end();
    } else if (current.etag === undefined || current.etag !== ifNoneMatch) {
      give(record, response);
    } else {
      const [, wait] = /;wait=(\d+)$/.exec(record.prefer ?? '') ?? [];
      if (longPoll && wait !== undefined) holdBack(record, response, Number(wait) * 1000);
      else response.writeHead(304).end();
    }
  }

  function give({ prefer, ifNoneMatch }: SeenRequest, response: ServerResponse): void {
    if (current === undefined) return;
    const { delta } = current;
    const takesDelta = delta?.from === ifNoneMatch && /\bdelta\b/.test(prefer ?? '');
    const bundle = (takesDelta ? delta?.bundle : undefined) ?? current.bundle;
    const type = longPoll ? 'application/vnd.openpolicyagent.bundles' : 'application/gzip';
    const etag = current.etag === undefined ? {} : { etag: current.etag };
    response.writeHead(200, { 'content-type': type, ...etag }).end(bundle);
  }

  function holdBack(record: SeenRequest, response: ServerResponse, ms: number): void {
    const done = (): void => {
      waiting.delete(news);
      clearTimeout(timer);
    };
    const news = (): void => {
      done();
      give(record, response);
    };
    const timer = setTimeout(() => {
      done();
      response.writeHead(304).end();
    }, ms);
    waiting.add(news);
    response.once('close', done);
  }

  const mutual = { requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' } as const;
  const server =
    tls === undefined
      ? createServer(handle)
      : createTlsServer({ ...mutual, cert: tls.certificatePem, key: tls.privateKeyPem, ca: tls.ca }, handle);
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const close = (): Promise<void> => end(server);
  t.after(close);
  const scheme = tls === undefined ? 'http' : 'https';
  const origin = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`;
  function put(version: Version): void {
    current = version;
    for (const wake of waiting) wake();
  }

  return {
    origin,
    path,
    url: origin + path,
    requests: () => seen,
    publish: (bundle, etag) => put({ bundle, etag }),
    publishDelta: (delta, bundle, etag) =>
      put({ bundle, etag, delta: { from: current?.etag, bundle: delta } }),
    override(answer) {
      override = answer;
    },
    requireToken(next) {
      token = next;
    },
    close,
  };
}

function end(server: { close(done: () => void): unknown; closeAllConnections(): void }): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

function clientOf({ socket }: IncomingMessage): string | undefined {
  if (!('getPeerCertificate' in socket)) return undefined;
  return (socket as TLSSocket).getPeerCertificate()?.subjectaltname;
}
