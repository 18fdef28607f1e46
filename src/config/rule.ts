import type { ConfigProblem } from '../runtime/errors.ts';
import type { Options } from './schema.ts';

/** A check over more than one option. `reads` lists their key paths: with one of them broken the rule stays silent. */
export type Rule = Readonly<{
  reads: readonly string[];
  check(options: Options): readonly ConfigProblem[];
}>;
