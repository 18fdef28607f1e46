import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { bindTcp } from '../runtime/bind-tcp.ts';
import { type ConnectionRoom, createConnectionRoom } from '../runtime/connection-room.ts';
import { LimitError, MalformedError, messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { HostPort } from '../runtime/socket-address.ts';
import { hasBody, readBody } from './body.ts';
import {
  type Answer,
  get,
  json,
  type Route,
  type Routes,
  refusal,
  type StreamedAnswer,
  text,
} from './http.ts';
import type { Readiness } from './readiness.ts';
import type { Status } from './status.ts';
import { pageSecurityPolicy, renderStatusPage } from './status-page.ts';

export type AdminOptions = Readonly<{
  readiness: () => Readiness;
  status: () => Status;
  metrics: () => Promise<Readonly<{ contentType: string; body: string }>>;
  /** What other parts of the program answer beside probes, metrics and status; never on a listener for probes. */
  routes: Routes;
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

export interface AdminServer {
  /** Binds; rejects with UnavailableError that says what is in the way. */
  listen(address: HostPort, scope: AdminScope): Promise<AdminListener>;
}

const maxHeaderBytes = 16 * 1024;
const maxConnections = 256;
const requestTimeoutMs = 10_000;
const idleTimeoutMs = 30_000;

/** The admin HTTP server: changes nothing, and only for those who address it by IP or as localhost. */
export function createAdminServer(options: AdminOptions): AdminServer {
  const { readiness, status, metrics, log } = options;
  const live = get(() => json(200, { status: 'live' }));
  const ready = get(() => {
    const { ready, missing } = readiness();
    return ready ? json(200, { status: 'ready' }) : json(503, { status: 'not_ready', missing });
  });
  const probes = new Map<string, Route>([
    ['/live', live],
    ['/health', live],
    ['/ready', ready],
    ['/metrics', get(async () => ({ status: 200, ...(await metrics()) }))],
  ]);
  const routes: Readonly<Record<AdminScope, Routes>> = {
    probes,
    all: new Map([
      ...options.routes,
      ...probes,
      ['/status', get(() => json(200, status()))],
      ['/', get(() => page(renderStatusPage(status())))],
    ]),
  };

  async function answerTo(
    request: IncomingMessage,
    scope: AdminScope,
    signal: AbortSignal,
  ): Promise<Answer | StreamedAnswer> {
    if (!isHostAllowed(request.headers.host)) {
      return refusal(403, 'the Host header must be an IP address or localhost');
    }
    const [path = '', ...query] = (request.url ?? '').split('?');
    const route = routes[scope].get(path);
    if (route === undefined) return refusal(404, 'not found');
    if (methodOf(request) !== route.method) {
      const allow = route.method === 'GET' ? 'GET, HEAD' : route.method;
      return { ...refusal(405, `only ${allow.replace(', ', ' and ')}`), headers: { allow } };
    }
    try {
      const body = route.method === 'POST' ? await readBody(request) : '';
      return await route.handle({ query: new URLSearchParams(query.join('?')), body, signal });
    } catch (error) {
      if (error instanceof MalformedError) return refusal(400, error.message);
      if (error instanceof LimitError) return refusal(413, error.message);
      // The query may hold what is not for logs.
      log.error({ path, error: messageOf(error) }, 'admin request failed');
      return refusal(500, 'internal error');
    }
  }

  async function handle(
    request: IncomingMessage,
    response: ServerResponse,
    scope: AdminScope,
    closing: AbortSignal,
    room: ConnectionRoom,
  ): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const signal = AbortSignal.any([closing, gone.signal]);
    const answer = await answerTo(request, scope, signal);
    const headers = {
      'content-type': answer.contentType,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      // A body that was not read to its end leaves the connection unusable.
      ...(hasBody(request) && !request.readableEnded ? { connection: 'close' } : {}),
    };
    if ('chunks' in answer) {
      response.writeHead(200, headers);
      const release = room.use(request.socket);
      try {
        await stream(response, request.method === 'HEAD' ? undefined : answer.chunks, signal);
      } finally {
        release();
      }
    } else {
      const length = { 'content-length': Buffer.byteLength(answer.body) };
      response.writeHead(answer.status, { ...headers, ...length, ...answer.headers });
      response.end(answer.body);
    }
  }

  async function listen(address: HostPort, scope: AdminScope): Promise<AdminListener> {
    const closing = new AbortController();
    const server = createServer(
      {
        maxHeaderSize: maxHeaderBytes,
        headersTimeout: requestTimeoutMs,
        requestTimeout: requestTimeoutMs,
        keepAliveTimeout: idleTimeoutMs,
      },
      (request, response) => {
        handle(request, response, scope, closing.signal, room).catch((error: unknown) => {
          log.error({ error: messageOf(error) }, 'admin answer failed');
          response.destroy();
        });
      },
    );
    const room = createConnectionRoom(server, maxConnections);
    const port = await bindTcp(server, address, {
      failure: `admin server cannot listen on ${address.host} port ${address.port}`,
      taken: 'stop the other program or change the address',
    });
    log.info({ host: address.host, port, scope }, 'admin server listens');
    return Object.freeze({
      host: address.host,
      port,
      close: () => {
        closing.abort();
        return close(server);
      },
    });
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

function methodOf({ method }: IncomingMessage): string | undefined {
  return method === 'HEAD' ? 'GET' : method;
}

/** Sends chunk after chunk, each one when the client has taken the one before. */
async function stream(
  response: ServerResponse,
  chunks: AsyncIterable<string> | undefined,
  signal: AbortSignal,
): Promise<void> {
  for await (const chunk of chunks ?? []) {
    if (signal.aborted) break;
    if (response.write(chunk)) continue;
    await once(response, 'drain', { signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }
  response.end();
}

function page(body: string): Answer {
  return {
    ...text(200, 'text/html; charset=utf-8', body),
    headers: { 'content-security-policy': pageSecurityPolicy, 'referrer-policy': 'no-referrer' },
  };
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    // Streams have been told to end, and get the moment that takes.
    setImmediate(() => server.closeAllConnections());
  });
}
