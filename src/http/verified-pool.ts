import type { Agent as HttpsAgent } from 'node:https';
import { UnavailableError } from '../runtime/errors.ts';
import type { TlsCredentials } from '../spiffe/tls-credentials.ts';
import type { ServerTrust } from './server-trust.ts';

/** We have nothing to show to a server that wants to know who we are; nothing was sent. */
export class NoCredentialsError extends UnavailableError {}

/** Connections to servers that have proved who they are. */
export interface VerifiedPool {
  /**
   * Does `work` with the connections of now. A connection made under another X509-SVID of ours or other bundles than
   * those of now is not among them; one in use at a change serves its exchange and ends. Rejects with NoCredentialsError while
   * we have no X509-SVID to show.
   */
  use<T>(work: (agent: HttpsAgent) => Promise<T>): Promise<T>;
  close(): void;
}

type Generation = { readonly agent: HttpsAgent; readonly madeUnder: readonly unknown[]; users: number };

/** A pool of connections by `createAgent`, which is given what we show of ourselves. */
export function createVerifiedPool(
  createAgent: (shown: TlsCredentials | undefined) => HttpsAgent,
  trust: ServerTrust,
): VerifiedPool {
  let current: Generation | undefined;

  function retire(generation: Generation): void {
    if (generation !== current && generation.users === 0) generation.agent.destroy();
  }

  function generationOfNow(): Generation {
    const { bundles, credentials } = trust.kind === 'spiffe' ? trust : {};
    const shown = credentials?.();
    if (credentials !== undefined && shown === undefined) {
      throw new NoCredentialsError('we have no valid X509-SVID to show to the server yet');
    }
    const madeUnder = [shown, bundles?.()];
    if (current?.madeUnder.every((part, index) => part === madeUnder[index])) return current;
    const former = current;
    current = { agent: createAgent(shown), madeUnder, users: 0 };
    if (former !== undefined) retire(former);
    return current;
  }

  return Object.freeze({
    async use<T>(work: (agent: HttpsAgent) => Promise<T>) {
      const generation = generationOfNow();
      generation.users += 1;
      try {
        return await work(generation.agent);
      } finally {
        generation.users -= 1;
        retire(generation);
      }
    },
    close() {
      current?.agent.destroy();
    },
  });
}
