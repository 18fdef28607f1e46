import { toAppError } from '../../runtime/errors.ts';
import { type Evaluation, failure } from '../policy-engine.ts';
import type { OpaPush } from './opa-push.ts';
import type { OpaRestEngine } from './opa-rest.ts';

const maxAttempts = 3;

/** What the files pushed are called beside OPA's own bundles. */
export const pushedName = 'push';

/**
 * An OPA that is only asked while it is sure to have the files pushed to it: an answer from one that was started anew
 * without them, which might allow too much, is never a decision.
 */
export function createPushedEngine(engine: OpaRestEngine, push: OpaPush): OpaRestEngine {
  async function evaluate(path: string, input: unknown, signal: AbortSignal): Promise<Evaluation> {
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      try {
        await push.confirm(signal);
      } catch (thrown) {
        const { code, message } = toAppError(thrown);
        const late = code === 'timeout' || code === 'aborted';
        return failure(late ? 'engine_timeout' : 'engine_unavailable', message);
      }
      const doubts = push.doubts();
      const revision = push.revision();
      const evaluation = await engine.evaluate(path, input, signal);
      if (evaluation.kind === 'failure') return evaluation;
      if (push.doubts() !== doubts) continue;
      // One that was under way during a push is of nobody knows which version.
      if (revision === '' || push.revision() !== revision) return evaluation;
      const bundles = { ...evaluation.bundles, [pushedName]: { revision } };
      return Object.freeze({ ...evaluation, bundles });
    }
    return failure('engine_unavailable', 'OPA is started anew again and again');
  }

  return Object.freeze({ ...engine, evaluate, ready: () => push.ready() });
}
