import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';

export type DecisionRecord = Readonly<{ [member: string]: unknown }>;

/** A decision log service that can be told to fail; `take` gets each record that it says yes to. */
export async function startDecisionService(t: TestContext, take: (record: DecisionRecord) => void) {
  const service = { status: 200, requests: 0 };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      service.requests += 1;
      if (service.status === 200) {
        for (const record of JSON.parse(gunzipSync(Buffer.concat(chunks)).toString()) as DecisionRecord[])
          take(record);
      }
      response.writeHead(service.status).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/logs`, service };
}
