/**
 * Lets heavy work in one piece at a time: what is returned resolves in a turn of the event loop in which no other one
 * does, so that whatever is light comes in between, however much is asked for at once.
 */
export function createTurns(): () => Promise<void> {
  let last = Promise.resolve();
  return () => {
    last = last.then(() => new Promise((resolve) => setImmediate(resolve)));
    return last;
  };
}
