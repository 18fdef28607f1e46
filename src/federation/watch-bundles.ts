import { isDeepStrictEqual } from 'node:util';
import { AbortedError, toAppError } from '../runtime/errors.ts';
import type { Latest } from '../runtime/latest.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import {
  createFederatedDomain,
  type FederatedDomain,
  type FederatedDomainDeps,
  type FederatedState,
} from './federated-domain.ts';
import type { FederationEntry } from './federation-entry.ts';

export interface BundleWatcher {
  /** Puts in force what is known of the entries' trust domains without asking anybody; to be done before `run`. */
  seed(known: readonly FederationEntry[]): Promise<void>;
  /** Follows the entries and their endpoints until `signal` fires. */
  run(signal: AbortSignal): Promise<void>;
  /** Undefined for a trust domain that has no entry. */
  state(trustDomain: TrustDomain): FederatedState | undefined;
}

export type BundleWatcherOptions = FederatedDomainDeps &
  Readonly<{
    /** The trust domains to federate with; entries may come, change and go. */
    entries: Pick<Latest<readonly FederationEntry[]>, 'changes'>;
  }>;

type Running = Readonly<{
  entry: FederationEntry;
  domain: FederatedDomain;
  stop: AbortController;
  ended: Promise<void>;
}>;

/**
 * Keeps the bundle of every entry's trust domain up to date in the store. An entry that goes ends the trust that its
 * endpoint gave; one that changes keeps what is held until its endpoint says otherwise.
 */
export function createBundleWatcher(options: BundleWatcherOptions): BundleWatcher {
  const { entries, ...deps } = options;
  const running = new Map<TrustDomain, Running>();
  const prepared = new Map<TrustDomain, FederatedDomain>();

  async function seed(known: readonly FederationEntry[]): Promise<void> {
    for (const entry of known) {
      const domain = createFederatedDomain(entry.trustDomain, deps);
      prepared.set(entry.trustDomain, domain);
      await domain.seed(entry);
    }
  }

  /** The domain of an entry that is new, seeded or not. */
  function take(trustDomain: TrustDomain): FederatedDomain {
    const domain = prepared.get(trustDomain) ?? createFederatedDomain(trustDomain, deps);
    prepared.delete(trustDomain);
    return domain;
  }

  async function end({ stop, ended }: Running): Promise<void> {
    stop.abort();
    await ended;
  }

  async function run(signal: AbortSignal): Promise<void> {
    const fault = new AbortController();
    const linked = AbortSignal.any([signal, fault.signal]);
    let failure: unknown;

    function start(entry: FederationEntry, domain: FederatedDomain): void {
      const stop = new AbortController();
      const ended = domain.follow(entry, AbortSignal.any([linked, stop.signal])).catch((error: unknown) => {
        if (error instanceof AbortedError) return;
        failure ??= error;
        fault.abort();
      });
      running.set(entry.trustDomain, { entry, domain, stop, ended });
    }

    for await (const wanted of entries.changes(linked)) {
      const names = new Set(wanted.map(({ trustDomain }) => trustDomain));
      for (const [trustDomain, task] of running) {
        if (names.has(trustDomain)) continue;
        await end(task);
        running.delete(trustDomain);
        await task.domain.forget();
      }
      for (const [trustDomain, domain] of prepared) {
        if (names.has(trustDomain)) continue;
        prepared.delete(trustDomain);
        await domain.forget();
      }
      for (const entry of wanted) {
        const task = running.get(entry.trustDomain);
        if (task !== undefined && isDeepStrictEqual(task.entry, entry)) continue;
        if (task !== undefined) await end(task);
        start(entry, task?.domain ?? take(entry.trustDomain));
      }
    }
    await Promise.all([...running.values()].map(({ ended }) => ended));
    if (failure !== undefined) throw toAppError(failure);
  }

  return Object.freeze({
    seed,
    run,
    state: (trustDomain: TrustDomain) =>
      (running.get(trustDomain)?.domain ?? prepared.get(trustDomain))?.state(),
  });
}
