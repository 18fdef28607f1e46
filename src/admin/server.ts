import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { errnoOf, messageOf, UnavailableError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { Readiness } from './readiness.ts';
import type { Status } from './status.ts';
import { pageSecurityPolicy, renderStatusPage } from './status-page.ts';

export type AdminOptions = Readonly<{
  readiness: () => Readiness;
  status: () => Status;
  metrics: () => Promise<Readonly<{ contentType: string; body: string }>>;
  log: Logger;
}>;

/** `all` serves everything, `probes` only /live, /ready, /health and /metrics. */
export type AdminScope = 'all' | 'probes';

export interface AdminListener {
  readonly host: string;
  /** The port that was bound, also when 0 was asked for. */
  readonly port: number;
  /** Stops taking connections and ends those that are open. */
  close(): Promise<void>;
}

type Address = Readonly<{ host: string; port: number }>;

export interface AdminServer {
  /** Binds; rejects with UnavailableError that says what is in the way. */
  listen(address: Address, scope: AdminScope): Promise<AdminListener>;
}

type Answer = Readonly<{
  status: number;
  contentType: string;
  body: string;
  headers?: Record<string, string>;
}>;
type Route = () => Answer | Promise<Answer>;

const maxHeaderBytes = 16 * 1024;
const maxConnections = 256;
const requestTimeoutMs = 10_000;
const idleTimeoutMs = 30_000;

/** The admin HTTP server: reads only, no secrets, and only for those who address it by IP or as localhost. */
export function createAdminServer(options: AdminOptions): AdminServer {
  const { readiness, status, metrics, log } = options;
  const live = (): Answer => json(200, { status: 'live' });
  const probes: Readonly<Record<string, Route>> = {
    '/live': live,
    '/health': live,
    '/ready': () => {
      const { ready, missing } = readiness();
      return ready ? json(200, { status: 'ready' }) : json(503, { status: 'not_ready', missing });
    },
    '/metrics': async () => ({ status: 200, ...(await metrics()) }),
  };
  const routes: Readonly<Record<AdminScope, ReadonlyMap<string, Route>>> = {
    probes: new Map(Object.entries(probes)),
    all: new Map<string, Route>([
      ...Object.entries(probes),
      ['/status', () => json(200, status())],
      ['/', () => page(renderStatusPage(status()))],
    ]),
  };

  async function answerTo(request: IncomingMessage, scope: AdminScope): Promise<Answer> {
    if (!isHostAllowed(request.headers.host)) {
      return json(403, { error: 'the Host header must be an IP address or localhost' });
    }
    const route = routes[scope].get((request.url ?? '').split('?', 1)[0] ?? '');
    if (route === undefined) return json(404, { error: 'not found' });
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return { ...json(405, { error: 'only GET and HEAD' }), headers: { allow: 'GET, HEAD' } };
    }
    try {
      return await route();
    } catch (error) {
      log.error({ path: request.url, error: messageOf(error) }, 'admin request failed');
      return json(500, { error: 'internal error' });
    }
  }

  async function handle(
    request: IncomingMessage,
    response: ServerResponse,
    scope: AdminScope,
  ): Promise<void> {
    const answer = await answerTo(request, scope);
    response.writeHead(answer.status, {
      'content-type': answer.contentType,
      'content-length': Buffer.byteLength(answer.body),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      // Nothing here takes a body; one that comes is not read, so the connection cannot be used again.
      ...(hasBody(request) ? { connection: 'close' } : {}),
      ...answer.headers,
    });
    response.end(answer.body);
  }

  async function listen(address: Address, scope: AdminScope): Promise<AdminListener> {
    const server = createServer(
      {
        maxHeaderSize: maxHeaderBytes,
        headersTimeout: requestTimeoutMs,
        requestTimeout: requestTimeoutMs,
        keepAliveTimeout: idleTimeoutMs,
      },
      (request, response) => void handle(request, response, scope),
    );
    server.maxConnections = maxConnections;
    const port = await bind(server, address);
    log.info({ host: address.host, port, scope }, 'admin server listens');
    return Object.freeze({ host: address.host, port, close: () => close(server) });
  }

  return Object.freeze({ listen });
}

/**
 * A browser that was lured to a name which resolves to this machine sends that name as Host, so names other than
 * localhost are refused (DNS rebinding). Clients without a Host are no browsers.
 */
export function isHostAllowed(host: string | undefined): boolean {
  if (host === undefined || host === '') return true;
  const [, ipv6, other] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host) ?? [];
  if (ipv6 !== undefined) return isIP(ipv6) === 6;
  return other !== undefined && (isIP(other) === 4 || other.toLowerCase() === 'localhost');
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

function json(status: number, value: unknown): Answer {
  return { status, contentType: 'application/json', body: `${JSON.stringify(value)}\n` };
}

function page(body: string): Answer {
  return {
    status: 200,
    contentType: 'text/html; charset=utf-8',
    body,
    headers: { 'content-security-policy': pageSecurityPolicy, 'referrer-policy': 'no-referrer' },
  };
}

function bind(server: Server, { host, port }: Address): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => reject(new UnavailableError(whyNotBound(cause, host, port), { cause })));
    server.listen({ host, port }, () => {
      const bound = server.address();
      resolve(typeof bound === 'object' && bound !== null ? bound.port : port);
    });
  });
}

function whyNotBound(cause: Error, host: string, port: number): string {
  const where = `admin server cannot listen on ${host} port ${port}`;
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: 'the port is taken; stop the other program or change the address',
    EACCES: 'permission denied; ports below 1024 need a privilege',
    EADDRNOTAVAIL: 'this machine has no such address',
  };
  return `${where}: ${reasons[errnoOf(cause) ?? ''] ?? cause.message}`;
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
