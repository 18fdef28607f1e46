import { type Agent, type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http';
import { LimitError, TimeoutError, UnavailableError } from '../runtime/errors.ts';

export type LoopbackRequest = Readonly<{
  port: number;
  path: string;
  method?: string;
  headers?: OutgoingHttpHeaders;
  body?: string | Buffer;
  /** Connections to reuse; without one each request is a connection of its own. */
  agent?: Agent;
  timeoutMs?: number;
}>;

export type LoopbackAnswer = Readonly<{ status: number; headers: IncomingHttpHeaders; body: string }>;

const MAX_BODY_BYTES = 16 << 20;

/** One HTTP request to a port of this machine; rejects with UnavailableError when there is no whole answer. */
export function loopbackHttp(options: LoopbackRequest, signal: AbortSignal): Promise<LoopbackAnswer> {
  const { port, path, method = 'GET', headers = {}, body, agent = false, timeoutMs = 5000 } = options;
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      reject(new UnavailableError(`${method} ${path} on port ${port}: ${cause.message}`, { cause }));
    };
    const call = request({ host: '127.0.0.1', port, path, method, headers, agent, signal });
    call.setTimeout(timeoutMs, () => call.destroy(new TimeoutError(`no answer within ${timeoutMs} ms`)));
    call.once('error', fail);
    call.once('response', (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
        if (bytes > MAX_BODY_BYTES) call.destroy(new LimitError(`more than ${MAX_BODY_BYTES} bytes`));
        parts.push(part);
      });
      response.once('error', fail);
      response.once('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        resolve(Object.freeze({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      });
    });
    call.end(body);
  });
}
