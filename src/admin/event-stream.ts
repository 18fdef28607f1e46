import type { Sleep } from '../runtime/abort.ts';
import { AbortedError } from '../runtime/errors.ts';

/** One server-sent event; `data` is JSON of public things only. */
export type AdminEvent = Readonly<{ name: 'svid_update' | 'bundle_update' | 'source_error'; data: unknown }>;

/** Hands events to every client that listens, as server-sent events (WHATWG HTML §9.2). */
export interface EventStream {
  publish(event: AdminEvent): void;
  /** True when one more client would be too many. */
  full(): boolean;
  /**
   * What a new client is sent from now on, until `signal` fires. One that lags far behind is let go: it has missed
   * something, and sees that when it comes back.
   */
  open(signal: AbortSignal): AsyncIterable<string>;
}

const heartbeatMs = 15_000;
const maxPending = 256;

/** `maxClients` bounds how many listen at once. */
export function createEventStream(options: { sleep: Sleep; maxClients: number }): EventStream {
  const { sleep, maxClients } = options;
  const clients = new Set<(text: string) => void>();

  async function* open(signal: AbortSignal): AsyncIterable<string> {
    const pending: string[] = [];
    let wake = new AbortController();
    const push = (text: string): void => {
      pending.push(text);
      wake.abort();
    };
    clients.add(push);
    try {
      yield ': svidecar\nretry: 3000\n\n';
      while (!signal.aborted && pending.length <= maxPending) {
        const text = pending.shift();
        if (text !== undefined) {
          yield text;
          continue;
        }
        wake = new AbortController();
        const quiet = await sleep(heartbeatMs, AbortSignal.any([signal, wake.signal])).then(
          () => true,
          (error: unknown) => {
            if (error instanceof AbortedError) return false;
            throw error;
          },
        );
        // Proxies and clients take a connection without traffic for dead.
        if (quiet) yield ': heartbeat\n\n';
      }
    } finally {
      clients.delete(push);
    }
  }

  return Object.freeze({
    publish({ name, data }: AdminEvent) {
      const text = `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
      for (const push of clients) push(text);
    },
    full: () => clients.size >= maxClients,
    open,
  });
}
