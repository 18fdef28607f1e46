import { type AgentOptions, Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import fetch, { FetchError, type RequestInit } from 'node-fetch';
import { withDeadline } from '../runtime/abort.ts';
import {
  AbortedError,
  AppError,
  type ErrorCode,
  errnoOf,
  LimitError,
  MalformedError,
  messageOf,
  TimeoutError,
  UnavailableError,
} from '../runtime/errors.ts';
import { ServerIdentityError, type ServerTrust } from './server-trust.ts';
import { createVerifiedPool } from './verified-pool.ts';
import { createVerifyingAgent } from './verifying-agent.ts';
import { watchIdle } from './watch-idle.ts';

export type HttpRequest = Readonly<{
  method: 'GET' | 'POST' | 'PUT';
  /** `http://host:port`, `https://host`, or `unix:///path.sock` for HTTP over a unix socket. */
  url: string;
  /** Path and query string, already encoded, put behind `url`; on a unix socket the only way to give one. */
  path?: string | undefined;
  headers?: Readonly<Record<string, string>> | undefined;
  body?: string | Buffer | undefined;
  timeoutMs: number;
  /** A longer body of the answer, after decompression, is refused. */
  maxBytes: number;
}>;

export type HttpResponse = Readonly<{
  status: number;
  /** Names in lower case; values of a repeated header joined by a comma. */
  headers: Readonly<Record<string, string>>;
  body: Buffer;
}>;

export interface HttpClient {
  /**
   * One exchange, whatever its status; redirects are answers, never followed. Rejects with UnavailableError when the
   * server cannot be reached or breaks off, ServerIdentityError when it is not who it has to be, TimeoutError after
   * `timeoutMs`, AbortedError when `signal` fires, LimitError for too long an answer, MalformedError for one that is not HTTP.
   */
  request(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse>;
  /** Ends all connections. */
  close(): void;
}

const idleMs = 30_000;
const refusedServer: ErrorCode = 'permission_denied';

/**
 * An HTTP client that keeps connections alive, at most `maxSockets` to one server. With `trust`, every https server has to
 * prove itself so before anything is sent to it, and there are as many connections as exchanges: one that had to queue
 * would go over a connection of then, not of now.
 */
export function createHttpClient(
  options: Readonly<{
    maxSockets: number;
    trust?: ServerTrust | undefined;
    /** Told when a connection ends that was kept for the next exchange, whoever ended it. */
    onIdleEnd?: (() => void) | undefined;
  }>,
): HttpClient {
  const { trust, onIdleEnd } = options;
  const agentOptions = { keepAlive: true, maxSockets: options.maxSockets, timeout: idleMs };
  const http = watchIdle(new HttpAgent(agentOptions), onIdleEnd);
  const https = watchIdle(new HttpsAgent(agentOptions), onIdleEnd);
  const verified =
    trust &&
    createVerifiedPool((shown) => watchIdle(createVerifyingAgent(trust, idleMs, shown), onIdleEnd), trust);
  const sockets = new Map<string, HttpAgent>();

  function send(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    const { path } = request;
    if (!request.url.startsWith('unix://')) {
      const url = path === undefined ? request.url : request.url.replace(/\/$/, '') + path;
      if (!url.startsWith('https:')) return exchange(url, request, http, signal);
      if (verified === undefined) return exchange(url, request, https, signal);
      return verified.use((agent) => exchange(url, request, agent, signal));
    }
    const socketPath = request.url.slice('unix://'.length);
    const agent = sockets.get(socketPath) ?? watchIdle(unixAgent(agentOptions, socketPath), onIdleEnd);
    sockets.set(socketPath, agent);
    return exchange(`http://localhost${path ?? ''}`, request, agent, signal);
  }

  return Object.freeze({
    request: (request: HttpRequest, signal: AbortSignal) =>
      withDeadline(request.timeoutMs, signal, async (bounded) => {
        try {
          return await send(request, bounded);
        } catch (error) {
          throw toHttpError(error, request);
        }
      }),
    close() {
      for (const agent of [http, https, ...sockets.values()]) agent.destroy();
      verified?.close();
    },
  });
}

/** Node hands an agent's options on to net.connect; its types do not say so. */
function unixAgent(options: AgentOptions, socketPath: string): HttpAgent {
  const withPath: AgentOptions & { socketPath: string } = { ...options, socketPath };
  return new HttpAgent(withPath);
}

async function exchange(
  url: string,
  request: HttpRequest,
  agent: HttpAgent,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const init: RequestInit = {
    method: request.method,
    headers: { ...request.headers },
    agent,
    redirect: 'manual',
    size: request.maxBytes,
    signal,
  };
  if (request.body !== undefined) init.body = request.body;
  const response = await fetch(url, init);
  const body = Buffer.from(await response.arrayBuffer());
  return Object.freeze({
    status: response.status,
    headers: Object.freeze(Object.fromEntries(response.headers)),
    body,
  });
}

function toHttpError(error: unknown, request: HttpRequest): AppError {
  if (error instanceof AppError) return error;
  const where = withoutQuery(`${request.method} ${request.url}${request.path ?? ''}`);
  if (error instanceof Error && error.name === 'AbortError')
    return new AbortedError(`${where} was cancelled`);
  if (error instanceof FetchError && error.type === 'max-size') {
    return new LimitError(`${where}: answer is longer than ${request.maxBytes} bytes`, { cause: error });
  }
  if (error instanceof FetchError && error.code === refusedServer) {
    // Of an agent's error node-fetch keeps code and text.
    return new ServerIdentityError(error.message.replace(/^.*? failed, reason: /, ''));
  }
  const errno = errnoOf(error);
  if (errno === 'ETIMEDOUT') return new TimeoutError(`${where}: connection timed out`, { cause: error });
  if (error instanceof Error && 'code' in error && /^(HPE_|Z_)/.test(String(error.code))) {
    return new MalformedError(`${where}: answer is not valid HTTP`, { cause: error });
  }
  return new UnavailableError(`${where}: ${errno ?? withoutQuery(messageOf(error))}`, { cause: error });
}

/** A query may hold a secret, as that of a signed link does. */
function withoutQuery(text: string): string {
  return text.replaceAll(/\?[^\s:]*/g, '');
}
