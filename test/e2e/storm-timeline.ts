/** The states of one thing that changes while Checks are under way, each with the time that it can have been in force. */
export interface Timeline<T> {
  readonly states: readonly T[];
  /** A further state may be in force from `at` on; its index. */
  begin(state: T, at?: number): number;
  /** From now on no state before this one is in force. */
  settle(index: number): void;
  /** What may have been in force at some moment between the two, in milliseconds of performance.now(). */
  between(sentAt: number, receivedAt: number): readonly T[];
}

export function createTimeline<T>(first: T): Timeline<T> {
  const states: T[] = [first];
  const begunAt = [0];
  const settledAt = [0];
  return {
    states,
    begin(state, at = performance.now()) {
      begunAt.push(at);
      settledAt.push(Number.POSITIVE_INFINITY);
      return states.push(state) - 1;
    },
    settle(index) {
      const now = performance.now();
      for (let i = index; i >= 0 && (settledAt[i] ?? 0) > now; i--) settledAt[i] = now;
    },
    between(sentAt, receivedAt) {
      const oldest = settledAt.findLastIndex((at) => at <= sentAt);
      return states.filter((_, index) => index >= oldest && (begunAt[index] ?? 0) <= receivedAt);
    },
  };
}
