import { Agent } from 'node:http';
import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, messageOf } from '../runtime/errors.ts';
import { type LoopbackRequest, loopbackHttp } from './loopback-http.ts';

export type TrafficOptions = Readonly<{
  request: LoopbackRequest;
  /** Loops that each send one request after the other. */
  loops: number;
  /** The pause of each loop between two requests. */
  pauseMs: number;
  /** Every how many requests a loop opens a new connection, so that handshakes are part of the traffic. */
  requestsPerConnection: number;
  /** After so many requests in all it ends by itself. */
  maxRequests: number;
  sleep: Sleep;
}>;

export type TrafficReport = Readonly<{ sent: number; failures: readonly string[] }>;

/** Sends requests until `until` fires; every one that is not answered with status 200 is a failure. Never rejects. */
export async function runTraffic(options: TrafficOptions, until: AbortSignal): Promise<TrafficReport> {
  const { request, loops, pauseMs, requestsPerConnection, maxRequests, sleep } = options;
  // A request in flight when the traffic ends is let through, so that the end never looks like a failure.
  const never = new AbortController().signal;
  const failures: string[] = [];
  let sent = 0;

  const loop = async (): Promise<void> => {
    while (!until.aborted && sent < maxRequests) {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      for (let i = 0; i < requestsPerConnection && !until.aborted && sent < maxRequests; i += 1) {
        sent += 1;
        try {
          const { status } = await loopbackHttp({ ...request, agent }, never);
          if (status !== 200) failures.push(`status ${status}`);
        } catch (error) {
          failures.push(messageOf(error));
        }
        try {
          await sleep(pauseMs, until);
        } catch (error) {
          if (!(error instanceof AbortedError)) throw error;
        }
      }
      agent.destroy();
    }
  };
  await Promise.all(Array.from({ length: loops }, loop));
  return Object.freeze({ sent, failures: Object.freeze(failures) });
}
