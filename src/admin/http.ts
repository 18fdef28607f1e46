/** A whole answer. */
export type Answer = Readonly<{
  status: number;
  contentType: string;
  body: string;
  headers?: Readonly<Record<string, string>>;
}>;

/** An answer that goes on until its chunks end; the request's signal ends them. */
export type StreamedAnswer = Readonly<{ contentType: string; chunks: AsyncIterable<string> }>;

export type AdminRequest = Readonly<{
  query: URLSearchParams;
  /** Empty for GET; bounded; see `readBody`. */
  body: string;
  /** Fires when the client is gone or the server stops. */
  signal: AbortSignal;
}>;

export type Handler = (
  request: AdminRequest,
) => Answer | StreamedAnswer | Promise<Answer> | Promise<StreamedAnswer>;

/** What one path answers to; HEAD is what GET is. */
export type Route = Readonly<{ method: 'GET' | 'POST'; handle: Handler }>;

/** Routes by path, without the query string. */
export type Routes = ReadonlyMap<string, Route>;

export function json(status: number, value: unknown): Answer {
  return text(status, 'application/json', `${JSON.stringify(value)}\n`);
}

export function text(status: number, contentType: string, body: string): Answer {
  return Object.freeze({ status, contentType, body });
}

/** A refusal in the one shape that all of them have. */
export function refusal(status: number, error: string): Answer {
  return json(status, { error });
}

export function get(handle: Handler): Route {
  return Object.freeze({ method: 'GET', handle });
}

export function post(handle: Handler): Route {
  return Object.freeze({ method: 'POST', handle });
}
