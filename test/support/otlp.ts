import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

/** A span as OTLP's JSON has it. */
export type OtlpSpan = Readonly<{
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: readonly Readonly<{ key: string; value: Readonly<{ stringValue?: string }> }>[];
  status: Readonly<{ code?: number }>;
}>;

type Request = Readonly<{
  resourceSpans: readonly Readonly<{
    resource: Readonly<{ attributes: OtlpSpan['attributes'] }>;
    scopeSpans: readonly Readonly<{ spans: readonly OtlpSpan[] }>[];
  }>[];
}>;

/** A collector that takes OTLP over HTTP. */
export interface Collector {
  readonly url: string;
  readonly spans: readonly OtlpSpan[];
  /** `service.name` of the last request. */
  readonly service: string | undefined;
  /** All that came, as text. */
  readonly text: string;
  /** Answers this from now on; undefined: never. */
  answer(status: number | undefined): void;
}

export async function startCollector(t: TestContext): Promise<Collector> {
  const spans: OtlpSpan[] = [];
  let service: string | undefined;
  let text = '';
  let status: number | undefined = 200;
  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = Buffer.concat(await request.toArray()).toString();
    if (request.url !== '/v1/traces' || status === undefined) return;
    if (status === 200) {
      text += body;
      for (const { resource, scopeSpans } of (JSON.parse(body) as Request).resourceSpans) {
        service = valueOf(resource.attributes, 'service.name');
        spans.push(...scopeSpans.flatMap((scope) => scope.spans));
      }
    }
    response.writeHead(status, { 'content-type': 'application/json' }).end('{}');
  };
  const server = createServer((request, response) => void take(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    get service() {
      return service;
    },
    get text() {
      return text;
    },
    answer(next) {
      status = next;
    },
  };
}

export function valueOf(attributes: OtlpSpan['attributes'], key: string): string | undefined {
  return attributes.find((attribute) => attribute.key === key)?.value.stringValue;
}
