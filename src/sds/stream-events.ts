/** A request, or the news that something to tell may have changed. */
export type MergedEvent<R> = Readonly<{ kind: 'request'; request: R } | { kind: 'snapshot' }>;

/**
 * Merges a stream's requests with the changes of the snapshot. Whoever reads slowly finds at most one request (the next
 * is not pulled before) and one change waiting, however many there were. Ends with the requests or when `signal` fires;
 * throws what the requests throw. `subscribe` is given the signal that ends the changes; it may name several things that
 * change.
 */
export async function* mergeEvents<R>(
  requests: AsyncIterable<R>,
  subscribe: (signal: AbortSignal) => readonly AsyncIterable<unknown>[],
  signal: AbortSignal,
): AsyncGenerator<MergedEvent<R>, void, void> {
  const stop = new AbortController();
  const linked = AbortSignal.any([signal, stop.signal]);
  let waiting: { request: R } | undefined;
  let changed = false;
  let ended = false;
  let failure: { error: unknown } | undefined;
  let wake = (): void => {};
  let taken = (): void => {};

  async function pullRequests(): Promise<void> {
    for await (const request of requests) {
      const handled = new Promise<void>((resolve) => {
        taken = resolve;
      });
      waiting = { request };
      wake();
      await handled;
      if (linked.aborted) return;
    }
    ended = true;
  }

  async function pullChanges(changes: AsyncIterable<unknown>): Promise<void> {
    for await (const _ of changes) {
      changed = true;
      wake();
    }
  }

  const fail = (error: unknown): void => {
    failure ??= { error };
  };
  void pullRequests()
    .catch(fail)
    .finally(() => wake());
  for (const changes of subscribe(linked)) {
    void pullChanges(changes)
      .catch(fail)
      .finally(() => wake());
  }
  const onAbort = (): void => wake();
  linked.addEventListener('abort', onAbort);

  try {
    while (!linked.aborted) {
      if (waiting !== undefined) {
        const { request } = waiting;
        waiting = undefined;
        yield { kind: 'request', request };
        taken();
      }
      if (changed) {
        changed = false;
        yield { kind: 'snapshot' };
      }
      if (failure !== undefined) throw failure.error;
      if (ended) return;
      if (waiting === undefined && !changed && !linked.aborted) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    stop.abort();
    taken();
  }
}
