import type { HttpClient, HttpRequest, HttpResponse } from '../../http/client.ts';
import { NoCredentialsError } from '../../http/verified-pool.ts';
import { type AppError, errnoOf, MalformedError, toAppError } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { isJsonObject } from '../../spiffe/json.ts';

export type OpaRequest = Pick<HttpRequest, 'method' | 'path' | 'body' | 'timeoutMs'> &
  Readonly<{ type?: string }>;

/** OPA's REST API. */
export interface OpaApi {
  readonly url: string;
  /** One exchange, whatever its status. Only for requests that may be repeated; rejects as HttpClient does. */
  send(request: OpaRequest, signal: AbortSignal): Promise<HttpResponse>;
}

export type OpaApiOptions = Readonly<{
  /** `http://…`, `https://…` or `unix:///path.sock`. */
  url: string;
  http: HttpClient;
  /** Told of each exchange that broke off or did not come about. */
  onBroken?: (() => void) | undefined;
}>;

const maxAnswerBytes = 4 * 1024 * 1024;
const maxMessageLength = 300;
const maxErrors = 5;

export function createOpaApi({ url, http, onBroken = () => {} }: OpaApiOptions): OpaApi {
  async function exchange({ type, ...rest }: OpaRequest, signal: AbortSignal): Promise<HttpResponse> {
    // OPA is near: compressing costs more than it saves.
    const headers = {
      'accept-encoding': 'identity',
      ...(type === undefined ? {} : { 'content-type': type }),
    };
    try {
      return await http.request({ ...rest, url, headers, maxBytes: maxAnswerBytes }, signal);
    } catch (error) {
      if (toAppError(error).code === 'unavailable') onBroken();
      throw error;
    }
  }

  return Object.freeze({
    url,
    async send(request: OpaRequest, signal: AbortSignal) {
      try {
        return await exchange(request, signal);
      } catch (error) {
        // A kept connection that OPA closed just now.
        if (!['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '')) throw error;
        return await exchange(request, signal);
      }
    },
  });
}

/** A document path or policy id as a part of a URL. Throws MalformedError. */
export function encodeOpaPath(path: string): string {
  const segments = path.split('/').filter((segment) => segment !== '');
  // URL parsers resolve these even when they are encoded.
  if (segments.some((segment) => segment === '.' || segment === '..')) {
    throw new MalformedError('path has dot segments');
  }
  try {
    return segments.map(encodeURIComponent).join('/');
  } catch (error) {
    throw new MalformedError('path is not valid text', { cause: error });
  }
}

/** OPA explains an error as `{code, message, errors}`; anything else is told by its status alone. Bounded. */
export function refusalText(response: HttpResponse): string {
  const status = `OPA answered HTTP status ${response.status}`;
  try {
    const body = parseJson(response.body.toString('utf8'));
    if (!isJsonObject(body) || typeof body['message'] !== 'string') return status;
    const { message, errors } = body;
    const details = Array.isArray(errors) ? errors.slice(0, maxErrors).map(detailOf) : [];
    return [`${status}: ${message.slice(0, maxMessageLength)}`, ...details].join('; ');
  } catch {
    return status;
  }
}

/** `file:row:column: message`, as compilers have it. */
function detailOf(error: unknown): string {
  if (!isJsonObject(error)) return '';
  const { message, location } = error;
  const text = String(message).slice(0, maxMessageLength);
  if (!isJsonObject(location)) return text;
  return `${String(location['file']).slice(0, maxMessageLength)}:${String(location['row'])}:${String(location['col'])}: ${text}`;
}

/** What an operator can do about an OPA that cannot be asked. */
export function remedyFor(error: AppError): string {
  if (error instanceof NoCredentialsError) return 'mend the identity source';
  return error.code === 'permission_denied'
    ? 'its certificate and policy.opa.spiffe_ids must fit'
    : 'start it, or correct policy.opa.url';
}
