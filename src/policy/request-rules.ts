import { ConfigError, type ConfigProblem } from '../runtime/errors.ts';
import {
  compileMatch,
  isUnsafePath,
  type MatchSpec,
  matchRequest,
  matchSubject,
  type QueryRequest,
} from './request-match.ts';

/** Rules of the configuration that each hold for the requests that their `match` fits. */
export interface RequestRules<R> {
  /**
   * The rules that fit, in their order. `unsafe_path` when any rule looks at the path and this one may lead somewhere
   * else at the upstream: whether a rule holds for such a request cannot be told. Never throws.
   */
  fitting(request: QueryRequest): readonly R[] | 'unsafe_path';
}

/** Compiles rules by the matcher of queries; throws ConfigError with every problem, key paths starting at `at`. */
export function compileRequestRules<R extends Readonly<{ match: MatchSpec }>>(
  rules: readonly R[],
  at: string,
): RequestRules<R> {
  const problems: ConfigProblem[] = [];
  const compiled = rules.map((rule, index) => {
    const report = (path: string) => (message: string) => {
      problems.push({ path, message });
    };
    return { rule, match: compileMatch(rule.match, `${at}[${index}].match`, report) };
  });
  if (problems.length > 0) throw new ConfigError(problems);
  const anyPath = compiled.some(({ match }) => match.path !== undefined);
  return Object.freeze({
    fitting(request: QueryRequest) {
      if (compiled.length === 0) return none;
      const subject = matchSubject(request);
      if (anyPath && subject.path !== undefined && isUnsafePath(subject.path)) return 'unsafe_path';
      return compiled
        .filter(({ match }) => matchRequest(match, subject) !== undefined)
        .map(({ rule }) => rule);
    },
  });
}

const none: readonly never[] = Object.freeze([]);
