import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { type LoopbackAnswer, type LoopbackRequest, loopbackHttp } from '../../src/stack/loopback-http.ts';

/** What the upstream saw of a request. */
export type SeenRequest = Readonly<{ method: string; path: string; headers: IncomingHttpHeaders }>;

/** An HTTP server that answers every request with 200 and, as JSON, what it saw of it. */
export interface EchoUpstream {
  readonly port: number;
  readonly seen: readonly SeenRequest[];
}

export async function startEchoUpstream(
  t: TestContext,
  answer: Readonly<Record<string, string>> = {},
): Promise<EchoUpstream> {
  const seen: SeenRequest[] = [];
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request;
    seen.push({ method, path: url, headers });
    request.resume();
    response.writeHead(200, { 'content-type': 'application/json', ...answer });
    response.end(JSON.stringify({ method, path: url, headers }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, seen };
}

/** One HTTP request on a connection of its own. */
export function http(request: LoopbackRequest): Promise<LoopbackAnswer> {
  return loopbackHttp(request, new AbortController().signal);
}
