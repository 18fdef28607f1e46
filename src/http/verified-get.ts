import { withDeadline } from '../runtime/abort.ts';
import { AppError } from '../runtime/errors.ts';
import { parseHttpsUrl } from '../runtime/https-url.ts';
import { createHttpClient, type HttpClient, type HttpResponse } from './client.ts';
import type { ServerTrust } from './server-trust.ts';

export type RedirectedGet = Readonly<{
  /** `https://…`, as `parseHttpsUrl` takes it. With `http://…` nobody proves anything: whether that will do is the caller's to say. */
  url: string;
  /** Names in lower case; `authorization` is for the origin of `url` only. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** For the whole exchange, redirects included. */
  timeoutMs: number;
  /** A longer body, after decompression, is refused. */
  maxBytes: number;
  maxRedirects: number;
}>;

export type VerifiedGet = RedirectedGet & Readonly<{ trust: ServerTrust }>;

export type RefusedAnswer = 'bad_status' | 'bad_redirect' | 'too_many_redirects';

/** The server answered, and with something that is not taken. */
export class RefusedAnswerError extends AppError {
  readonly reason: RefusedAnswer;

  constructor(reason: RefusedAnswer, message: string) {
    super('unavailable', message);
    this.reason = reason;
  }
}

const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The body of `GET url`, only with status 200 and only from a server that `trust` accepts; what else holds of
 * `getRedirected` holds here.
 */
export async function verifiedGet(request: VerifiedGet, signal: AbortSignal): Promise<Buffer> {
  const client = createHttpClient({ maxSockets: 1, trust: request.trust });
  try {
    const { status, body } = await getRedirected(client, request, signal);
    if (status === 200) return body;
    throw new RefusedAnswerError('bad_status', `answered with status ${status}, expected 200`);
  } finally {
    client.close();
  }
}

/**
 * The answer to `GET url`, whatever its status. Redirects are followed to https only, so by a client with a trust every
 * server on the way has to pass the same check; where they led is forgotten. Rejects with ServerIdentityError,
 * RefusedAnswerError, TimeoutError, LimitError, MalformedError (an answer that is not HTTP), UnavailableError, or
 * AbortedError.
 */
export function getRedirected(
  client: HttpClient,
  request: RedirectedGet,
  signal: AbortSignal,
): Promise<HttpResponse> {
  return withDeadline(request.timeoutMs, signal, (bounded) => follow(client, request, bounded));
}

async function follow(
  client: HttpClient,
  { url: first, headers = {}, timeoutMs, maxBytes, maxRedirects }: RedirectedGet,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const { authorization: _, ...forOthers } = headers;
  let url = first;
  for (let followed = 0; ; followed += 1) {
    const shown = new URL(url).origin === new URL(first).origin ? headers : forOthers;
    const answer = await client.request({ method: 'GET', url, headers: shown, timeoutMs, maxBytes }, signal);
    if (!redirects.has(answer.status)) return answer;
    if (followed >= maxRedirects) {
      throw new RefusedAnswerError('too_many_redirects', `redirected more than ${maxRedirects} times`);
    }
    url = redirectTarget(answer.headers['location'], url);
  }
}

function redirectTarget(location: string | undefined, from: string): string {
  if (location === undefined || !URL.canParse(location, from)) {
    throw new RefusedAnswerError('bad_redirect', 'redirected to nowhere');
  }
  try {
    return parseHttpsUrl(new URL(location, from).href);
  } catch {
    throw new RefusedAnswerError('bad_redirect', 'redirected to what is no plain https URL');
  }
}
