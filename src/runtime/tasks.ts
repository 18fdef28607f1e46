import { AbortedError } from './errors.ts';

/** A long-running part of the program: it runs until `signal` fires, or fails. */
export type Task = (signal: AbortSignal) => Promise<void>;

/**
 * Runs every task until `signal` fires. The first one to fail aborts the others, and its error is thrown once all of
 * them have come to rest. A task that returns early simply is done.
 */
export async function runTasks(signal: AbortSignal, tasks: readonly Task[]): Promise<void> {
  const controller = new AbortController();
  const linked = AbortSignal.any([signal, controller.signal]);
  let failure: { error: unknown } | undefined;
  await Promise.all(
    tasks.map(async (task) => {
      try {
        await task(linked);
      } catch (error) {
        if (error instanceof AbortedError && linked.aborted) return;
        failure ??= { error };
        controller.abort();
      }
    }),
  );
  if (failure !== undefined) throw failure.error;
}
