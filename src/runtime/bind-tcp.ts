import type { Server } from 'node:net';
import { errnoOf, UnavailableError } from './errors.ts';
import type { HostPort } from './socket-address.ts';

/** How a failed bind is told: what cannot listen where, and what to do when the port is taken. */
export type BindWords = Readonly<{ failure: string; taken: string }>;

/** Binds and gives the port, also when 0 was asked for; rejects with UnavailableError that says what is in the way. */
export function bindTcp(server: Server, { host, port }: HostPort, words: BindWords): Promise<number> {
  return new Promise((resolve, reject) => {
    // Not once: a failed accept later on costs that connection, not the program.
    server.on('error', (cause) => reject(new UnavailableError(whyNotBound(cause, words), { cause })));
    server.listen({ host, port }, () => {
      const bound = server.address();
      resolve(typeof bound === 'object' && bound !== null ? bound.port : port);
    });
  });
}

function whyNotBound(cause: Error, { failure, taken }: BindWords): string {
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: `the port is taken; ${taken}`,
    EACCES: 'permission denied; ports below 1024 need a privilege',
    EADDRNOTAVAIL: 'this machine has no such address',
  };
  return `${failure}: ${reasons[errnoOf(cause) ?? ''] ?? cause.message}`;
}
