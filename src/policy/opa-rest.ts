import type { HttpClient, HttpResponse } from '../http/client.ts';
import { type AppError, errnoOf, MalformedError, toAppError, UnavailableError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import { encodeInput } from './input-text.ts';
import type { EngineFailure, Evaluation, PolicyEngine } from './policy-engine.ts';

export type OpaRestOptions = Readonly<{
  /** `http://…`, `https://…` or `unix:///path.sock`. */
  url: string;
  http: HttpClient;
  /** Bound on one query; the Check's own signal is usually sooner. */
  timeoutMs: number;
  log: Logger;
}>;

export interface OpaRestEngine extends PolicyEngine {
  /** Resolves when OPA says that it is healthy; rejects with an AppError that says why not. */
  probe(signal: AbortSignal): Promise<void>;
}

const maxAnswerBytes = 4 * 1024 * 1024;
const maxMessageLength = 300;
const headers = Object.freeze({ 'content-type': 'application/json' });

/** A remote OPA, asked over its Data API (POST /v1/data). `ready()` is always true: an OPA that is away fails each Check. */
export function createOpaRestEngine(options: OpaRestOptions): OpaRestEngine {
  const { url, http, timeoutMs, log } = options;
  let reachable = true;

  async function post(path: string, body: string, signal: AbortSignal): Promise<HttpResponse> {
    const request = {
      method: 'POST',
      url,
      path,
      headers,
      body,
      timeoutMs,
      maxBytes: maxAnswerBytes,
    } as const;
    try {
      return await http.request(request, signal);
    } catch (error) {
      // A kept-alive connection that OPA closed just now; a query changes nothing, so asking again is safe.
      if (!['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '')) throw error;
      return await http.request(request, signal);
    }
  }

  function note(failed?: AppError): void {
    if ((failed === undefined) === reachable) return;
    reachable = failed === undefined;
    if (failed === undefined) log.info({ url }, 'OPA answers again');
    else log.warn({ url, error: failed.message }, `OPA cannot be reached: ${remedyFor(failed)}`);
  }

  async function evaluate(decision: string, input: unknown, signal: AbortSignal): Promise<Evaluation> {
    try {
      const body = `{"input":${encodeInput(input)}}`;
      const response = await post(`/v1/data/${encodePath(decision)}`, body, signal);
      note();
      return readAnswer(response);
    } catch (thrown) {
      const error = toAppError(thrown);
      const reason = failureOf(error);
      if (reason === 'engine_unavailable') note(error);
      return failure(reason, error.message);
    }
  }

  return Object.freeze({
    name: 'opa',
    evaluate,
    ready: () => true,
    revision: () => '',
    async probe(signal: AbortSignal) {
      const request = { method: 'GET', url, path: '/health', timeoutMs, maxBytes: maxAnswerBytes } as const;
      const { status } = await http.request(request, signal).catch((error: unknown) => {
        throw withRemedy(toAppError(error));
      });
      if (status !== 200) throw new UnavailableError(`OPA at ${url} is not healthy (HTTP status ${status})`);
    },
  });
}

function withRemedy(error: AppError): AppError {
  if (failureOf(error) !== 'engine_unavailable') return error;
  return new UnavailableError(`OPA cannot be reached (${error.message}): ${remedyFor(error)}`, {
    cause: error,
  });
}

function remedyFor({ code }: AppError): string {
  return code === 'permission_denied'
    ? 'its certificate and policy.opa.spiffe_ids must fit'
    : 'start it, or correct policy.opa.url';
}

function encodePath(decision: string): string {
  const segments = decision.split('/').filter((segment) => segment !== '');
  // URL parsers resolve these even when they are encoded.
  if (segments.some((segment) => segment === '.' || segment === '..')) {
    throw new MalformedError('decision path has dot segments');
  }
  try {
    return segments.map(encodeURIComponent).join('/');
  } catch (error) {
    throw new MalformedError('decision path is not valid text', { cause: error });
  }
}

function readAnswer(response: HttpResponse): Evaluation {
  if (response.status === 503 || response.status === 429) {
    return failure('engine_unavailable', refusalText(response));
  }
  if (response.status !== 200) return failure('engine_error', refusalText(response));
  let answer: unknown;
  try {
    answer = JSON.parse(response.body.toString('utf8'));
  } catch {
    return failure('engine_error', 'answer of OPA is not JSON');
  }
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
    return failure('engine_error', 'answer of OPA is not a JSON object');
  }
  if (!Object.hasOwn(answer, 'result')) return Object.freeze({ kind: 'undefined' });
  return Object.freeze({ kind: 'result', value: (answer as { result: unknown }).result });
}

/** OPA explains an error as `{code, message}`; anything else is told by its status alone. */
function refusalText(response: HttpResponse): string {
  const status = `OPA answered HTTP status ${response.status}`;
  try {
    const body = JSON.parse(response.body.toString('utf8')) as unknown;
    if (typeof body === 'object' && body !== null && 'message' in body && typeof body.message === 'string') {
      return `${status}: ${body.message.slice(0, maxMessageLength)}`;
    }
  } catch {
    // Not OPA's error document.
  }
  return status;
}

function failureOf(error: AppError): EngineFailure {
  if (error.code === 'timeout' || error.code === 'aborted') return 'engine_timeout';
  // A server that is not who it has to be is no OPA of ours.
  if (error.code === 'unavailable' || error.code === 'permission_denied') return 'engine_unavailable';
  return 'engine_error';
}

function failure(reason: EngineFailure, message: string): Evaluation {
  return Object.freeze({ kind: 'failure', reason, message });
}
